//! Keeps what the models produce, so that anyone can see that it worked.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use crossbeam_channel::{Receiver, Sender, bounded};
use onbeat_backend::{Audio, Data};
use onbeat_core::id::{NodeId, SourceId};
use onbeat_core::system::System;
use onbeat_runtime::{Keep, Product, Trouble};

use crate::failure::Failure;

/// Pictures kept per stage.
const PICTURES_MAX: u32 = 3;

/// Sound kept per stage of a stream [samples]: ten minutes at 16 kHz.
const SAMPLES_MAX: usize = 10 * 60 * 16_000;

/// Products that are handed to the writer together: waking it for each would disturb the models.
const BATCH: usize = 64;

/// Batches that may wait to be written; what comes beyond is left out, because the schedule does not wait for a disk.
const WAITING_MAX: usize = 64;

/// Keeps what the models produce, and what went wrong.
#[derive(Debug)]
pub(crate) struct Keeper {
    troubles: Vec<Trouble>,
    products: Option<Sender<Vec<Product>>>,
    batch: Vec<Product>,
    writer: Option<std::thread::JoinHandle<Result<Vec<String>, Failure>>>,
    left_out: u64,
}

impl Keeper {
    /// Writes into a folder; without one nothing is kept.
    pub(crate) fn new(system: &System, folder: Option<&Path>) -> Result<Self, Failure> {
        let Some(folder) =
            folder.filter(|_| system.platform.processors.iter().any(onbeat_core::system::Processor::runs_models))
        else {
            return Ok(Self { troubles: Vec::new(), products: None, batch: Vec::new(), writer: None, left_out: 0 });
        };
        fs::create_dir_all(folder).map_err(Failure::io("create", folder))?;
        let (products, theirs) = bounded(WAITING_MAX);
        let writer = Writer::new(system, folder);
        let writer = std::thread::Builder::new()
            .name("outputs".to_owned())
            .spawn(move || {
                onbeat_runtime::stand_back();
                writer.work(&theirs)
            })
            .map_err(|error| Failure::Internal(format!("cannot start a thread: {error}")))?;
        Ok(Self {
            troubles: Vec::new(),
            products: Some(products),
            batch: Vec::new(),
            writer: Some(writer),
            left_out: 0,
        })
    }

    /// Hands the batch to the writer.
    fn hand_over(&mut self) {
        let batch = std::mem::take(&mut self.batch);
        let count = batch.len() as u64;
        if let Some(products) = &self.products
            && products.try_send(batch).is_err()
        {
            self.left_out += count;
        }
    }

    /// What went wrong, and what was kept, in words.
    pub(crate) fn finish(mut self) -> Result<(Vec<Trouble>, Vec<String>), Failure> {
        self.hand_over();
        drop(self.products.take());
        let mut lines = match self.writer.take().map(std::thread::JoinHandle::join) {
            Some(Ok(lines)) => lines?,
            Some(Err(_)) => return Err(Failure::Internal("the thread that writes outputs has panicked".to_owned())),
            None => Vec::new(),
        };
        if self.left_out > 0 {
            lines.push(format!("{} outputs were left out: the disk was too slow", self.left_out));
        }
        Ok((self.troubles, lines))
    }
}

impl Keep for Keeper {
    fn product(&mut self, product: Product) {
        if self.products.is_some() {
            self.batch.push(product);
            if self.batch.len() >= BATCH {
                self.hand_over();
            }
        }
    }

    fn trouble(&mut self, trouble: Trouble) {
        self.troubles.push(trouble);
    }
}

/// Writes products to files.
#[derive(Debug)]
struct Writer {
    folder: PathBuf,
    /// Source and stage, by node.
    names: BTreeMap<NodeId, (String, String)>,
    sessions: BTreeMap<SourceId, bool>,
    pictures: BTreeMap<NodeId, u32>,
    /// Sound of streams, put together.
    sound: BTreeMap<NodeId, (u32, Vec<f32>)>,
    written: BTreeMap<String, u64>,
    said: Vec<String>,
}

impl Writer {
    fn new(system: &System, folder: &Path) -> Self {
        let name = |node: &onbeat_core::system::Node| {
            (system.sources[node.source].name.clone(), node.name.replace(['/', '\\', ':'], "-"))
        };
        Self {
            folder: folder.to_owned(),
            names: system.nodes.enumerate().map(|(id, node)| (id, name(node))).collect(),
            sessions: system.sources.enumerate().map(|(id, source)| (id, source.session)).collect(),
            pictures: BTreeMap::new(),
            sound: BTreeMap::new(),
            written: BTreeMap::new(),
            said: Vec::new(),
        }
    }

    fn work(mut self, products: &Receiver<Vec<Product>>) -> Result<Vec<String>, Failure> {
        while let Ok(batch) = products.recv() {
            for product in batch {
                self.write(&product)?;
            }
        }
        for (node, (rate_hz, samples)) in std::mem::take(&mut self.sound) {
            let (source, stage) = self.names[&node].clone();
            let file = format!("{source}-{stage}.wav");
            self.wav(&file, &Audio { rate_hz, samples: samples.into() })?;
        }
        let count: u64 = self.written.values().sum();
        if count > 0 {
            self.said.push(format!("Outputs: {count} files in {}", self.folder.display()));
        }
        Ok(self.said)
    }

    fn write(&mut self, product: &Product) -> Result<(), Failure> {
        let (source, stage) = self.names[&product.node].clone();
        let session = self.sessions[&product.source];
        for data in &product.data {
            match data {
                Data::Text(text) => {
                    let line = format!("{:9.3} s  job {}  {}", product.at.as_secs(), product.job, text.trim());
                    self.append(&format!("{source}-{stage}.txt"), &line)?;
                    self.said.push(format!("{source}/{stage}: {}", text.trim()));
                }
                Data::Audio(audio) if session => {
                    let file = format!("{source}-{stage}-{}-{}.wav", product.job, product.instance);
                    self.wav(&file, audio)?;
                }
                Data::Audio(audio) => {
                    let (_, samples) = self.sound.entry(product.node).or_insert((audio.rate_hz, Vec::new()));
                    if samples.len() < SAMPLES_MAX {
                        samples.extend_from_slice(&audio.samples);
                    }
                }
                Data::Image(image) => {
                    let count = self.pictures.entry(product.node).or_insert(0);
                    *count += 1;
                    if *count <= PICTURES_MAX {
                        let file = format!("{source}-{stage}-{}.png", product.job);
                        let path = self.folder.join(&file);
                        let failed =
                            |error: onbeat_backend::Error| Failure::Device { message: error.to_string(), help: None };
                        onbeat_vision::picture::write_png(&path, image).map_err(failed)?;
                        *self.written.entry(file).or_insert(0) += 1;
                    }
                }
                Data::Regions(regions) => {
                    let count = self.pictures.entry(product.node).or_insert(0);
                    *count += 1;
                    if *count <= PICTURES_MAX {
                        let line = format!("{:9.3} s  job {}  {regions:?}", product.at.as_secs(), product.job);
                        self.append(&format!("{source}-{stage}.txt"), &line)?;
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn append(&mut self, file: &str, line: &str) -> Result<(), Failure> {
        let path = self.folder.join(file);
        // The first line of a run replaces what an earlier run left.
        let first = !self.written.contains_key(file);
        let mut options = fs::OpenOptions::new();
        let options = if first { options.write(true).create(true).truncate(true) } else { options.append(true) };
        let mut opened = options.open(&path).map_err(Failure::io("write", &path))?;
        writeln!(opened, "{line}").map_err(Failure::io("write", &path))?;
        self.written.insert(file.to_owned(), 1);
        Ok(())
    }

    fn wav(&mut self, file: &str, audio: &Audio) -> Result<(), Failure> {
        let path = self.folder.join(file);
        let failed = |error: onbeat_backend::Error| Failure::Device { message: error.to_string(), help: None };
        onbeat_speech::wav::write(&path, audio).map_err(failed)?;
        self.written.insert(file.to_owned(), 1);
        Ok(())
    }
}
