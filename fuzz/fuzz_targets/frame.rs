#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let _ = tunproof_fuzz::frame(data);
});
