//! WAV files: one channel of 16-bit samples is written; what is read may also have more channels, or 32-bit floating point.

use std::io::{Cursor, ErrorKind as IoErrorKind};
use std::path::Path;

use hound::{SampleFormat, WavReader, WavSpec, WavWriter};
use onbeat_backend::{Audio, Error};

/// Reads a file. Several channels are averaged into one.
///
/// # Errors
/// Names the file: if it is not there, is no WAV file, or holds samples that are neither 16-bit integers nor 32-bit floating point.
pub fn read(file: &Path) -> Result<Audio, Error> {
    let about = |e: Error| e.about(&file.display().to_string());
    let bytes = std::fs::read(file).map_err(|e| {
        about(if e.kind() == IoErrorKind::NotFound {
            Error::not_found("there is no such file")
        } else {
            Error::device(e.to_string())
        })
    })?;
    decode(&bytes).map_err(about)
}

/// Decodes the bytes of a WAV file. Several channels are averaged into one.
///
/// # Errors
/// If they are none, or the samples are neither 16-bit integers nor 32-bit floating point.
pub fn decode(bytes: &[u8]) -> Result<Audio, Error> {
    let wrong = |e: hound::Error| Error::invalid_input(format!("this is no whole WAV file: {e}"));
    let mut reader = WavReader::new(Cursor::new(bytes)).map_err(wrong)?;
    let spec = reader.spec();
    let interleaved: Vec<f32> = match (spec.sample_format, spec.bits_per_sample) {
        (SampleFormat::Int, 16) => reader
            .samples::<i16>()
            .map(|s| s.map(|v| f32::from(v) / 32768.0))
            .collect::<Result<_, _>>()
            .map_err(wrong)?,
        (SampleFormat::Float, 32) => reader.samples::<f32>().collect::<Result<_, _>>().map_err(wrong)?,
        (format, bits) => {
            let kind = if format == SampleFormat::Int { "integers" } else { "floating point" };
            return Err(Error::invalid_input(format!(
                "its samples are {bits}-bit {kind}; 16-bit integers and 32-bit floating point can be read"
            )));
        }
    };
    let channels = usize::from(spec.channels);
    if channels == 0 || spec.sample_rate == 0 {
        return Err(Error::invalid_input(format!(
            "{channels} channels at {} Hz; both must be at least 1",
            spec.sample_rate
        )));
    }
    let samples = interleaved.chunks_exact(channels).map(|frame| frame.iter().sum::<f32>() / channels as f32).collect();
    Ok(Audio { rate_hz: spec.sample_rate, samples })
}

/// Writes a file: one channel, 16-bit integers. Samples beyond ±1 are clipped.
///
/// # Errors
/// Names the file, if it cannot be written.
pub fn write(file: &Path, audio: &Audio) -> Result<(), Error> {
    let failed = |e: hound::Error| Error::device(format!("{}: {e}", file.display()));
    let spec =
        WavSpec { channels: 1, sample_rate: audio.rate_hz, bits_per_sample: 16, sample_format: SampleFormat::Int };
    let mut writer = WavWriter::create(file, spec).map_err(failed)?;
    for &sample in audio.samples.iter() {
        writer.write_sample((sample * 32768.0).round().clamp(-32768.0, 32767.0) as i16).map_err(failed)?;
    }
    writer.finalize().map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        let file = std::env::temp_dir().join(format!("onbeat-speech-wav-{}.wav", std::process::id()));
        let audio = Audio { rate_hz: 16_000, samples: [0.0, 0.5, -1.0, 2.0].into() };
        write(&file, &audio).unwrap();
        let read_again = read(&file).unwrap();
        std::fs::remove_file(&file).unwrap();
        assert_eq!(read_again, Audio { rate_hz: 16_000, samples: [0.0, 0.5, -1.0, 32767.0 / 32768.0].into() });
    }

    #[test]
    fn channels_are_averaged() {
        let mut bytes = Vec::new();
        let spec = WavSpec { channels: 2, sample_rate: 8_000, bits_per_sample: 32, sample_format: SampleFormat::Float };
        let mut writer = WavWriter::new(Cursor::new(&mut bytes), spec).unwrap();
        for sample in [0.25_f32, 0.75, -1.0, 0.0] {
            writer.write_sample(sample).unwrap();
        }
        writer.finalize().unwrap();
        assert_eq!(&*decode(&bytes).unwrap().samples, [0.5, -0.5]);
        assert!(decode(&bytes[..bytes.len() - 3]).unwrap_err().to_string().starts_with("this is no whole WAV file"));
    }

    #[test]
    fn errors_name_the_file_and_the_format() {
        let missing = read(Path::new("missing.wav")).unwrap_err();
        assert_eq!(missing.to_string(), "missing.wav: there is no such file");
        assert!(decode(b"RIFF").unwrap_err().to_string().starts_with("this is no whole WAV file: "));
    }
}
