//! The seeds of `fuzz/`, replayed without a fuzzer through what its targets call.

use std::fs;
use std::path::Path;

/// What the fuzzer calls.
#[path = "../fuzz/src/lib.rs"]
pub mod targets;

/// What takes none of its seeds says nothing of what comes behind the first check, and what takes all nothing of
/// refusals; strangers are all made, and never ours.
#[test]
fn every_seed_is_taken_or_refused_and_no_target_panics() {
    for (name, target) in targets::TARGETS {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("fuzz/seeds")
            .join(name);
        let entries = fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
        let (mut taken, mut refused) = (0, 0);
        for entry in entries {
            let path = entry.unwrap().path();
            println!("{}", path.display());
            match target(&fs::read(&path).unwrap()) {
                true => taken += 1,
                false => refused += 1,
            }
        }
        println!("{name}: {taken} taken, {refused} refused");
        assert!(taken >= 2, "{name}: {taken} taken, {refused} refused");
        let never_refuses = ["stranger", "quote"].contains(&name);
        assert!(refused > 0 || never_refuses, "{name}: none refused");
    }
}

#[test]
fn every_target_is_a_program_of_at_most_15_lines() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    let manifest = fs::read_to_string(root.join("Cargo.toml")).unwrap();
    let programs = fs::read_dir(root.join("fuzz_targets")).unwrap().count();
    assert_eq!(programs, targets::TARGETS.len());
    for (name, _) in targets::TARGETS {
        assert!(manifest.contains(&format!("name = \"{name}\"\n")), "{name}");
        let text = fs::read_to_string(root.join(format!("fuzz_targets/{name}.rs"))).unwrap();
        assert!(text.contains(&format!("::{name}(data)")) && text.lines().count() <= 15);
    }
}
