//! Damaged files are errors, never panics.

use onbeat_vision::picture::decode;
use onbeat_vision::{convert_anime4k, convert_tflite};
use proptest::prelude::*;

use crate::{anime4k, tflite};

#[test]
fn every_shorter_file_is_an_error() {
    let file = tflite::small();
    assert!(convert_tflite(&file).is_ok());
    for length in 0..file.len() {
        assert!(convert_tflite(&file[..length]).is_err(), "the first {length} bytes");
    }
    let file = anime4k::small();
    for length in 0..file.len() {
        assert!(convert_anime4k(&file[..length]).is_err(), "the first {length} bytes");
    }
}

proptest! {
    #[test]
    fn random_files_do_not_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = convert_tflite(&bytes);
        let _ = convert_tflite(&[&[8, 0, 0, 0], &b"TFL3"[..], &bytes].concat());
        let _ = convert_anime4k(&bytes);
        let _ = decode(&bytes);
    }

    #[test]
    fn changed_files_do_not_panic(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8)) {
        for (mut file, convert) in [
            (tflite::small(), convert_tflite as fn(&[u8]) -> _),
            (anime4k::small(), convert_anime4k as fn(&[u8]) -> _),
        ] {
            for (at, byte) in &changes {
                let at = at.index(file.len());
                file[at] = *byte;
            }
            let _ = convert(&file);
        }
    }
}
