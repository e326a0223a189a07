//! Whatever bytes stand in a record file: reading returns a record or an error, and never panics.
#![no_main]

use libfuzzer_sys::fuzz_target;
use onbeat_core::record::Record;

fuzz_target!(|data: &[u8]| {
    if let Ok(record) = Record::read(data) {
        // What was read fits together: indices may be followed without looking.
        assert_eq!(record.header.system.validate(), Ok(()));
        assert!(record.events.is_sorted_by_key(|event| event.at), "events are in order of time");
    }
});
