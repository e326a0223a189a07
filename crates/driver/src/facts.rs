//! What is known about a run's jobs instead of being drawn at random: what real data decided, live or in a record.

use std::collections::BTreeMap;

use onbeat_core::id::{NodeId, SourceId};

/// What is known about a run's jobs instead of being drawn at random. Jobs are named by their serial number.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    lengths: BTreeMap<(u64, NodeId, u32), (u32, u32)>,
    follows: BTreeMap<(u64, NodeId, u32), u32>,
    parts: BTreeMap<(u64, NodeId, u32), Vec<u32>>,
    source_lengths: BTreeMap<(SourceId, NodeId), Vec<(u32, u32)>>,
}

impl Facts {
    /// An instance of a stage has this prompt and this output [tokens].
    pub fn set_length(&mut self, job: u64, node: NodeId, instance: u32, prompt: u32, output: u32) {
        self.lengths.insert((job, node, instance), (prompt, output));
    }

    /// The output of a stage, whose prompt is known, turned out to be this long [tokens].
    pub fn set_output(&mut self, job: u64, node: NodeId, instance: u32, output: u32) {
        if let Some(length) = self.lengths.get_mut(&(job, node, instance)) {
            length.1 = output;
        }
    }

    /// Prompt and output of a stage that starts a source's jobs [tokens]: of the first job, the second, and so on, and from the
    /// beginning again.
    pub fn set_source_lengths(&mut self, source: SourceId, node: NodeId, lengths: Vec<(u32, u32)>) {
        self.source_lengths.insert((source, node), lengths);
    }

    /// So many instances follow over the stage's edge number `edge`.
    pub fn set_followers(&mut self, job: u64, node: NodeId, edge: u32, count: u32) {
        self.follows.insert((job, node, edge), count);
    }

    /// An instance of a stage hands on a part of its output when it has generated `tokens` tokens. Parts come in order.
    pub fn add_part(&mut self, job: u64, node: NodeId, instance: u32, tokens: u32) {
        self.parts.entry((job, node, instance)).or_default().push(tokens);
    }

    /// An instance of a stage hands on its output in parts, none of which is known yet.
    pub fn expect_parts(&mut self, job: u64, node: NodeId, instance: u32) {
        self.parts.entry((job, node, instance)).or_default();
    }

    /// Forgets a job that has ended.
    pub fn forget(&mut self, job: u64) {
        fn of<V>(map: &mut BTreeMap<(u64, NodeId, u32), V>, job: u64) {
            let range = (job, NodeId(0), 0)..=(job, NodeId(u32::MAX), u32::MAX);
            let keys: Vec<_> = map.range(range).map(|(&key, _)| key).collect();
            for key in keys {
                map.remove(&key);
            }
        }
        of(&mut self.lengths, job);
        of(&mut self.follows, job);
        of(&mut self.parts, job);
    }

    /// Length of a stage of the job, which is number `index` of its source.
    pub(crate) fn length(
        &self,
        job: u64,
        (source, index): (SourceId, u64),
        node: NodeId,
        instance: u32,
    ) -> Option<(u32, u32)> {
        let of_job = self.lengths.get(&(job, node, instance)).copied();
        of_job.or_else(|| {
            let all = self.source_lengths.get(&(source, node)).filter(|all| !all.is_empty())?;
            Some(all[(index % all.len() as u64) as usize])
        })
    }

    pub(crate) fn followers(&self, job: u64, node: NodeId, edge: usize) -> Option<u32> {
        self.follows.get(&(job, node, edge as u32)).copied()
    }

    pub(crate) fn parts(&self, job: u64, node: NodeId, instance: u32) -> Option<&[u32]> {
        self.parts.get(&(job, node, instance)).map(Vec::as_slice)
    }
}
