//! Sessions: how a network is put on a device.

use std::path::Path;
use std::sync::Arc;

use onbeat_backend::{Control, Error, LoadOptions};
use onbeat_onnx::Model;
use ort::compiler::ModelCompiler;
use ort::ep::ArbitrarilyConfigurableExecutionProvider as _;
use ort::logging::LogLevel;
use ort::session::Session;
use ort::session::builder::{AutoDevicePolicy, SessionBuilder};

use crate::cache::{Entry, Key};
use crate::cut::Beside;
use crate::runtime::{self, Found, Runtime};
use crate::{error, precision, provider};

/// Where a network comes from.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Source<'a> {
    /// A file.
    File(&'a Path),
    /// A part that was cut out.
    Part {
        /// A name, for the cache.
        name: &'a str,
        /// The network.
        content: &'a [u8],
        /// Weights that lie in files beside the whole network's.
        beside: &'a [Beside],
    },
}

/// A device, and how to load onto it.
#[derive(Debug)]
pub(crate) struct Target<'a> {
    pub(crate) runtime: &'a Runtime,
    pub(crate) device: &'a str,
    pub(crate) options: &'a LoadOptions,
    /// Provider options for every network; those of `options` come first.
    pub(crate) defaults: &'a [(String, String)],
    pub(crate) control: &'a Control,
}

impl Target<'_> {
    /// Loads a network, from the cache if it was compiled before.
    pub(crate) fn open(&self, source: Source) -> Result<Session, Error> {
        let found = self.runtime.find(self.device)?;
        let on_cpu = found.provider == provider::CPU;
        let settings = self.settings(&found);
        let builder = || self.builder(source, &settings).map_err(|error| error::loading(&error, on_cpu));
        let entry = if on_cpu { None } else { self.inspect(source, &found, &settings)? };
        if let Some(entry) = &entry {
            if entry.find().is_none() && !entry.is_none() {
                let compiler = builder()?;
                let _cancel = self.cancel(&compiler);
                entry.keep(|path| compile(compiler, source, path).is_ok());
            }
            if let Some(path) = entry.find() {
                match self.commit(builder()?, Source::File(path)) {
                    Ok(session) => return Ok(session),
                    Err(error) if error.code() == ort::ErrorCode::ModelLoadCanceled => return Err(Error::cancelled()),
                    // Made by something else after all, or damaged.
                    Err(_) => entry.forget(),
                }
            }
        }
        if self.control.is_cancelled() {
            return Err(Error::cancelled());
        }
        let result = self.commit(builder()?, source);
        let cancelled = self.control.is_cancelled();
        result.map_err(|error| if cancelled { Error::cancelled() } else { error::loading(&error, on_cpu) })
    }

    fn commit(&self, mut builder: SessionBuilder, source: Source) -> ort::Result<Session> {
        let _cancel = self.cancel(&builder);
        match source {
            Source::File(path) => builder.commit_from_file(path),
            Source::Part { content, .. } => builder.commit_from_memory(content),
        }
    }

    fn cancel(&self, builder: &SessionBuilder) -> onbeat_backend::CancelHook {
        let canceler = builder.canceler();
        self.control.on_cancel(move || {
            // It can fail only if there are no options.
            let _ = canceler.cancel();
        })
    }

    /// The provider's options, without the provider's name, and the session's, whose names begin with what they are about.
    fn settings(&self, found: &Found<'_>) -> Vec<(String, String)> {
        let plugin = self.runtime.plugin_of(&found.provider);
        let folder = plugin.as_ref().and_then(|plugin| plugin.path.parent());
        let prefix = format!("{}.", found.provider);
        let mut list = provider::defaults(&found.provider, found.device.kind, self.options, folder);
        let general = self.defaults.iter().filter(|(key, _)| key.starts_with(&prefix));
        for (key, value) in general.chain(&self.options.extra) {
            let key = key.strip_prefix(&prefix).unwrap_or(key);
            list.retain(|(other, _)| other != key);
            list.push((key.to_owned(), value.clone()));
        }
        list
    }

    fn builder(&self, source: Source, settings: &[(String, String)]) -> ort::Result<SessionBuilder> {
        // A device of the runtime is used up by the session that is put on it.
        let found = self.runtime.find(self.device).map_err(|error| ort::Error::new(error.to_string()))?;
        let threads = self.options.threads.max(1);
        let mut builder = Session::builder(&self.runtime.environment)?
            .with_intra_threads(threads)?
            .with_inter_threads(1)?
            .with_intra_op_spinning(false)?
            .with_inter_op_spinning(false)?;
        if std::env::var_os("ORT_LOG").is_none() {
            builder = builder.with_log_level(LogLevel::Fatal)?;
        }
        if let Some(affinity) = affinity(threads, &self.options.cores) {
            builder = builder.with_config_entry("session.intra_op_thread_affinities", affinity)?;
        }
        if let Source::Part { beside, .. } = source {
            for (name, content) in beside {
                builder = builder.with_external_initializer_file_in_memory(name, Arc::clone(content))?;
            }
        }
        for (name, size) in &self.options.dimensions {
            builder = builder.with_dimension_override(name, i64::try_from(*size).unwrap_or(i64::MAX))?;
        }
        let (session, provider): (Vec<_>, Vec<_>) = settings.iter().partition(|(key, _)| is_session_option(key));
        for (key, value) in session {
            builder = builder.with_config_entry(key, value)?;
        }
        if found.provider != provider::CPU && !self.options.fallback {
            builder = builder.with_disable_cpu_fallback()?;
        }
        // Looks up the device among all once more.
        let _reading = self.runtime.reading();
        match found.target {
            runtime::Target::Reported(device) => {
                let named = |(key, value): &(String, String)| (format!("{}.{key}", found.provider), value.clone());
                let provider: Vec<_> = provider.into_iter().map(named).collect();
                Ok(builder.with_devices([device], Some(&provider))?)
            }
            runtime::Target::CoreMl => {
                let core_ml = provider
                    .iter()
                    .filter(|(key, value)| !key.contains('\0') && !value.contains('\0'))
                    .fold(ort::ep::CoreML::default(), |it, (key, value)| it.with_arbitrary_config(key, value));
                let builder = builder.with_auto_device(AutoDevicePolicy::PreferCPU)?;
                Ok(builder.with_execution_providers([core_ml.build().error_on_failure()])?)
            }
        }
    }

    /// Looks into a network before a provider compiles it: whether its precision can be kept, and where what is compiled is kept – `None`
    /// if nowhere. A network that cannot be read is left to the library, which says why.
    fn inspect(
        &self,
        source: Source,
        found: &Found<'_>,
        settings: &[(String, String)],
    ) -> Result<Option<Entry>, Error> {
        let (content, name) = match source {
            Source::File(path) => (std::fs::read(path), path.file_stem().unwrap_or_default().to_string_lossy()),
            Source::Part { content, name, .. } => (Ok(content.to_vec()), name.into()),
        };
        let Ok(content) = content else { return Ok(None) };
        let key = Key::default().bytes(&content);
        let Ok(model) = Model::read(content) else { return Ok(None) };
        precision::check(&found.provider, found.device.kind, self.options, settings, &model)?;
        let Some(folder) = self.options.cache.as_deref() else { return Ok(None) };

        let key = match source {
            Source::Part { beside, .. } => beside.iter().fold(key, |key, (_, content)| key.bytes(content)),
            Source::File(path) => {
                let beside = path.parent().unwrap_or(Path::new(""));
                model.external_files().iter().fold(key, |key, name| key.stamp(&beside.join(name)))
            }
        };
        let plugin = self.runtime.plugin_of(&found.provider);
        let key = key.stamp(plugin.as_ref().map_or(&self.runtime.library.path, |plugin| &plugin.path));
        let key = key.text(&found.provider).text(&found.device.name).text(&found.device.description);
        let LoadOptions { dimensions, precision, fallback, .. } = self.options;
        let key = key.text(&format!("{settings:?} {dimensions:?} {precision:?} {fallback}"));
        Ok(Some(key.entry(folder, &name)))
    }
}

fn compile(builder: SessionBuilder, source: Source, path: &Path) -> ort::Result<()> {
    let compiler = ModelCompiler::new(builder)?.with_embed_ep_context()?;
    match source {
        Source::File(file) => compiler.with_model_from_file(file)?.compile_to_file(path),
        Source::Part { content, .. } => compiler.with_model_from_memory(content)?.compile_to_file(path),
    }
}

/// Whether an option is one of the session's: ONNX Runtime's keys for these begin with what they are about.
fn is_session_option(key: &str) -> bool {
    ["session.", "optimization.", "mlas.", "ep."].iter().any(|prefix| key.starts_with(prefix))
}

/// The cores of all threads but the calling one, as ONNX Runtime writes them: counted from 1, threads separated by semicolons.
fn affinity(threads: usize, cores: &[usize]) -> Option<String> {
    if cores.is_empty() || threads < 2 {
        return None;
    }
    let list: Vec<String> = (0..threads - 1).map(|thread| (cores[thread % cores.len()] + 1).to_string()).collect();
    Some(list.join(";"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_further_thread_has_a_core() {
        assert_eq!(affinity(1, &[3]), None);
        assert_eq!(affinity(3, &[]), None);
        assert_eq!(affinity(4, &[2, 5]).unwrap(), "3;6;3");
    }

    #[test]
    fn session_options_are_told_from_provider_options() {
        assert!(is_session_option("session.x64quantprecision"));
        assert!(!is_session_option("htp_performance_mode"));
    }
}
