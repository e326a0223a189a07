//! Real weights hear real sound. They lie in the folder that `ONBEAT_TEST_MODELS` names: `silero-vad/silero_vad_16k_stateful.onnx`,
//! `dtln/dtln_1.onnx` and `dtln_2.onnx`, and `whisper-tiny.en/`, converted or as CTranslate2 has it. Speech comes from `espeak-ng`.
//! What is not there is skipped.
#![expect(clippy::unwrap_used, reason = "a test that meets what it did not expect panics")]

mod denoise;
mod support;
mod vad;
mod whisper;
