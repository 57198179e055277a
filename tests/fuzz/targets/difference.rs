#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| ochopod_inputs::difference(bytes));
