//! An answer in progress.

use std::sync::Arc;

use onbeat_backend::{
    Control, Data, Error, ErrorKind, Gate, Output, Session, Step, Tensor, Value, Values, first_sentence,
};

use crate::model::Shared;
use crate::sampling::pick;
use crate::saved::{Reader, Writer};
use crate::tokenizer::Text;

/// An answer in progress: the tokens, and what the network has computed of them (the caches).
#[derive(Debug)]
pub(crate) struct LanguageSession {
    model: Arc<Shared>,
    /// The prompt, then the answer.
    tokens: Vec<u32>,
    /// How many of them are the prompt.
    prompt: usize,
    /// How many of them were fed to the network, as the caller knows it.
    reached: usize,
    /// How many of them are in the caches: fewer, if a run that was stopped has lost them.
    fed: usize,
    stage: Stage,
    text: Text,
    /// Bytes of the text that were given as parts.
    given: usize,
    values: Values,
    running: Option<Running>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Stage {
    /// No prompt yet.
    Idle,
    Going,
    /// The last token is there.
    Done,
}

/// A run of the network that has not come to its end.
#[derive(Clone, Copy, Debug)]
struct Running {
    /// Tokens that it feeds.
    count: usize,
    /// The segment that comes next.
    segment: usize,
}

impl LanguageSession {
    pub(crate) fn new(model: Arc<Shared>) -> Self {
        Self {
            model,
            tokens: Vec::new(),
            prompt: 0,
            reached: 0,
            fed: 0,
            stage: Stage::Idle,
            text: Text::default(),
            given: 0,
            values: Values::new(),
            running: None,
        }
    }

    fn start(&mut self, tokens: Vec<u32>) -> Result<(), Error> {
        self.prompt = tokens.len();
        self.tokens = tokens;
        self.stage = Stage::Going;
        self.text = Text::default();
        self.given = 0;
        self.reached = 0;
        self.forget()
    }

    /// Empties the caches.
    fn forget(&mut self) -> Result<(), Error> {
        self.running = None;
        self.fed = 0;
        self.values.clear();
        for cache in &self.model.caches {
            self.values.put(&cache.past, Tensor::new([1, cache.heads, 0, cache.head], Vec::<f32>::new())?);
        }
        Ok(())
    }

    /// Feeds tokens to the network until so many are in the caches; the logits after the last of them are in the values then.
    ///
    /// What a run that was stopped has lost depends on the backend. If its next segment can run, the run goes on; if not, the caches
    /// are made anew from the tokens.
    fn feed_to(&mut self, target: usize, control: &Control) -> Result<(), Error> {
        while self.fed < target {
            let Some(running) = self.running else {
                let ids: Vec<i64> = self.tokens[self.fed..target].iter().map(|&it| i64::from(it)).collect();
                self.values.put("input_ids", Tensor::new([1, ids.len()], ids)?);
                self.go_on(Running { count: target - self.fed, segment: 0 }, control)?;
                continue;
            };
            match self.go_on(running, control) {
                Err(error) if error.kind() == ErrorKind::InvalidInput => self.forget()?,
                other => other?,
            }
        }
        self.reached = self.fed;
        Ok(())
    }

    /// Has so many tokens in the caches, whatever a run that was stopped has lost.
    fn catch_up(&mut self, target: usize, control: &Control) -> Result<(), Error> {
        if self.running.is_some() {
            self.forget()?;
        }
        if self.fed < target {
            self.feed_to(target, control)?;
            self.values.take("logits")?;
        }
        Ok(())
    }

    pub(crate) fn is_of(&self, model: &Arc<Shared>) -> bool {
        Arc::ptr_eq(&self.model, model)
    }

    /// Whether a step can be done now.
    fn check(&self, control: &Control) -> Result<(), Error> {
        match self.stage {
            Stage::Going if control.is_cancelled() => Err(Error::cancelled()),
            Stage::Going => Ok(()),
            Stage::Idle => Err(Error::invalid_input("the session has no prompt yet: begin comes before step")),
            Stage::Done => Err(Error::invalid_input("the answer is finished: begin comes before the next step")),
        }
    }

    /// The network has fed so many tokens: what it made are the next caches.
    fn fed(&mut self, count: usize) -> Result<(), Error> {
        for cache in &self.model.caches {
            self.values.rename(&cache.present, &cache.past)?;
        }
        self.running = None;
        self.fed += count;
        Ok(())
    }

    fn go_on(&mut self, mut running: Running, control: &Control) -> Result<(), Error> {
        let model = Arc::clone(&self.model);
        while running.segment < model.graph.segments() {
            self.running = Some(running);
            model.graph.run_segment(running.segment, &mut self.values, control)?;
            running.segment += 1;
        }
        self.fed(running.count)
    }

    /// Takes the next token of the answer from the logits.
    fn next_token(&mut self) -> Result<(), Error> {
        let logits = self.values.take_tensor("logits")?;
        let options = &self.model.options;
        let count = (self.tokens.len() - self.prompt) as u64;
        let vocabulary = self.model.tokenizer.len();
        let logits = logits.view::<f32>()?;
        let chosen = logits.get(..vocabulary).and_then(|it| pick(it, options.temperature, options.seed, count));
        let Some(token) = chosen else {
            let found = logits.len();
            return Err(Error::device(format!(
                "the network's logits cannot be used: {found} numbers for {vocabulary} tokens, or some that are no numbers"
            )));
        };
        self.tokens.push(token);
        let ended = self.model.tokenizer.ends(token);
        if !ended {
            self.text.push(self.model.tokenizer.decode(token));
        }
        let answer = self.tokens.len() - self.prompt;
        if ended || answer >= options.tokens_max as usize || self.tokens.len() >= self.model.context {
            self.text.end();
            self.stage = Stage::Done;
        }
        Ok(())
    }

    /// Sentences that are complete and were not given yet; at the end, what remains.
    fn parts(&mut self) -> Vec<Data> {
        let mut parts = Vec::new();
        let mut give = |text: &str| {
            let text = text.trim();
            if !text.is_empty() {
                parts.push(Data::Text(text.into()));
            }
        };
        while let Some(length) = first_sentence(&self.text.as_str()[self.given..]) {
            give(&self.text.as_str()[self.given..self.given + length]);
            self.given += length;
        }
        if self.stage == Stage::Done {
            give(&self.text.as_str()[self.given..]);
            self.given = self.text.as_str().len();
        }
        parts
    }
}

/// One more token of each of several answers, in one run of the network. Each keeps its own caches.
pub(crate) fn step_together(
    model: &Shared,
    members: &mut [&mut LanguageSession],
    control: &Control,
) -> Result<Vec<Step>, Error> {
    for member in members.iter() {
        member.check(control)?;
        if member.reached < member.prompt {
            return Err(Error::invalid_input("a prompt is worked through alone: only answers share steps"));
        }
    }
    for member in members.iter_mut() {
        let target = member.tokens.len() - 1;
        member.catch_up(target, control)?;
        let id = i64::from(member.tokens[target]);
        member.values.put("input_ids", Tensor::new([1, 1], vec![id])?);
        member.running = Some(Running { count: 1, segment: 0 });
    }
    let mut values: Vec<&mut Values> = members.iter_mut().map(|member| &mut member.values).collect();
    model.graph.run_together(&mut values, control)?;
    let mut steps = Vec::with_capacity(members.len());
    for member in members {
        member.fed(1)?;
        member.reached = member.fed;
        member.next_token()?;
        steps.push(Step { units: 1, done: member.stage == Stage::Done, parts: member.parts() });
    }
    Ok(steps)
}

impl Session for LanguageSession {
    fn begin(&mut self, input: &[Data]) -> Result<(), Error> {
        let tokens = self.model.prompt(input)?;
        self.start(tokens)
    }

    fn step(&mut self, units: u32, control: &Control) -> Result<Step, Error> {
        self.check(control)?;
        let before = self.reached;
        let in_prompt = before < self.prompt;
        let left = self.tokens.len() - before;
        let count = if in_prompt { left.min(units.max(1) as usize) } else { left };
        self.feed_to(before + count, control)?;
        if self.reached == self.tokens.len() {
            self.next_token()?;
        } else {
            self.values.take("logits")?;
        }
        let units = if in_prompt { (self.reached - before) as u32 } else { 1 };
        Ok(Step { units, done: self.stage == Stage::Done, parts: self.parts() })
    }

    fn end_early(&mut self) -> Result<Vec<Data>, Error> {
        if self.stage != Stage::Going || self.tokens.len() == self.prompt {
            return Err(Error::invalid_input("there is no answer yet that could be ended"));
        }
        self.text.end();
        self.stage = Stage::Done;
        Ok(self.parts())
    }

    fn finish(&mut self) -> Result<Output, Error> {
        if self.stage != Stage::Done {
            return Err(Error::invalid_input("the answer is not finished"));
        }
        self.stage = Stage::Idle;
        // The caches are of no more use, and take memory.
        self.values.clear();
        self.fed = 0;
        Ok(Output { data: vec![Data::Text(self.text.as_str().trim().into())], gate: Gate::Unknown })
    }

    fn save(&self) -> Result<Vec<u8>, Error> {
        let mut to = Writer::new(match self.stage {
            Stage::Idle => 0,
            Stage::Going => 1,
            Stage::Done => 2,
        });
        to.number(self.prompt);
        to.number(self.given);
        to.number(self.tokens.len());
        self.tokens.iter().for_each(|&it| to.number(it as usize));
        // The caches of a run that was stopped may be anywhere; they are made anew from the tokens.
        let fed = if self.running.is_none() && self.stage == Stage::Going { self.fed } else { 0 };
        to.number(self.reached);
        to.number(fed);
        if fed > 0 {
            for cache in &self.model.caches {
                match self.values.get(&cache.past)? {
                    Value::Host(tensor) => to.floats(tensor.view()?),
                    Value::Device(value) => to.floats(value.to_tensor()?.view()?),
                }
            }
        }
        Ok(to.finish())
    }

    fn restore(&mut self, saved: &[u8]) -> Result<(), Error> {
        let (mut from, stage) = Reader::new(saved)?;
        let (prompt, given, count) = (from.number()?, from.number()?, from.number()?);
        let context = self.model.context;
        if count > context || prompt > count {
            return Err(Error::invalid_input(format!(
                "the saved session has {count} tokens; the model takes {context}"
            )));
        }
        let vocabulary = self.model.tokenizer.len();
        let token = |token: usize| (token < vocabulary).then_some(token as u32);
        let tokens: Option<Vec<u32>> = (0..count).map(|_| from.number().map(token)).collect::<Result<_, _>>()?;
        let tokens = tokens.ok_or_else(|| Error::invalid_input("the saved session has tokens that the model lacks"))?;
        let (reached, fed) = (from.number()?, from.number()?);
        if fed > reached || reached > count {
            return Err(Error::invalid_input("the saved session's caches are longer than its text"));
        }
        let mut caches = Vec::new();
        for cache in self.model.caches.iter().filter(|_| fed > 0) {
            let numbers = from.floats(cache.heads * fed * cache.head)?;
            caches.push((cache.past.clone(), Tensor::new([1, cache.heads, fed, cache.head], numbers)?));
        }
        from.end()?;
        let mut text = Text::default();
        for &token in tokens[prompt..].iter().filter(|&&token| !self.model.tokenizer.ends(token)) {
            text.push(self.model.tokenizer.decode(token));
        }
        let stage = match stage {
            0 => Stage::Idle,
            1 => Stage::Going,
            _ => Stage::Done,
        };
        if stage == Stage::Done {
            text.end();
        }
        if !text.as_str().is_char_boundary(given) {
            return Err(Error::invalid_input("the saved session has given more text than it has"));
        }
        let model = Arc::clone(&self.model);
        *self = Self::new(model);
        self.forget()?;
        for (name, tensor) in caches {
            self.values.put(&name, tensor);
        }
        (self.tokens, self.prompt, self.reached, self.fed) = (tokens, prompt, reached, fed);
        (self.stage, self.text, self.given) = (stage, text, given);
        Ok(())
    }

    fn memory(&self) -> u64 {
        let per_token: usize = self.model.caches.iter().map(|it| it.heads * it.head * size_of::<f32>()).sum();
        (self.fed * per_token) as u64
    }
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod together;
