//! One boot of the guest, and the folder its results are written to.

use std::fs;
use std::fs::File;
use std::panic::catch_unwind;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::process::Stdio;
use std::sync::OnceLock;
use std::time::Duration;
use std::time::Instant;

/// What the guest boots from its initramfs; everything else comes from the unpacked kernel package.
const BOOT_MODULES: [&str; 4] = ["virtio_pci", "9pnet_virtio", "9p", "overlay"];
/// More than a slow machine needs for all cases.
const LONGEST: Duration = Duration::from_secs(40 * 60);

/// The folder of results; the first test that asks boots the guest, once for all.
pub(crate) fn results() -> &'static Path {
    static RESULTS: OnceLock<Option<PathBuf>> = OnceLock::new();
    let results = RESULTS.get_or_init(|| catch_unwind(boot).ok());
    let results = results.as_deref();
    results.expect("a whole run of the guest; the test that booted it says what went wrong")
}

/// The unit tests' binary, some of which need this kernel; `.ci/run` names it.
pub(crate) fn unit_tests() -> Option<PathBuf> {
    let path = std::env::var_os("GUEST_UNIT_TESTS")?;
    Some(fs::canonicalize(path).expect("GUEST_UNIT_TESTS is a file"))
}

fn boot() -> PathBuf {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = repository.join("target/guest");
    let unpacked = folder.join("root");
    let modules = unpacked.join("lib/modules");
    let version = fs::read_dir(&modules)
        .unwrap_or_else(|error| {
            panic!(
                "no kernel in {}: {error}; run tests/guest/fetch-kernel.sh",
                modules.display()
            )
        })
        .next()
        .expect("a kernel's modules")
        .unwrap()
        .file_name()
        .into_string()
        .unwrap();
    let results = folder.join("results");
    let _ = fs::remove_dir_all(&results);
    fs::create_dir_all(&results).unwrap();
    let initramfs = initramfs(repository, &folder, &version);
    let console = folder.join("console");
    let log = File::create(&console).unwrap();

    let append = format!(
        "console=ttyS0 loglevel=1 panic=-1 GUEST={} KERNEL={} TUNPROOF={} UNIT={} ONLY={}",
        repository.join("tests/guest").display(),
        unpacked.display(),
        env!("CARGO_BIN_EXE_tunproof"),
        unit_tests().unwrap_or_default().display(),
        only()
    );
    let share = |id: &str, path: &Path, how: &str| {
        [
            "-fsdev".to_owned(),
            format!(
                "local,id={id},path={},security_model=none,{how}",
                path.display()
            ),
            "-device".to_owned(),
            format!("virtio-9p-pci,fsdev={id},mount_tag={id}"),
        ]
    };
    // Plain emulation: /dev/kvm may be there and hang.
    // `timeout` ends the guest even if this process is killed before.
    let mut guest = Command::new("timeout")
        .arg(LONGEST.as_secs().to_string())
        .arg("qemu-system-x86_64")
        .args([
            "-accel",
            "tcg,thread=multi",
            "-M",
            "q35",
            "-cpu",
            "max",
            "-smp",
            "2",
            "-m",
            "1536",
        ])
        .args([
            "-nodefaults",
            "-no-user-config",
            "-no-reboot",
            "-display",
            "none",
            "-serial",
            "stdio",
        ])
        .args(share(
            "below",
            Path::new("/"),
            "readonly=on,multidevs=remap",
        ))
        .args(share("results", &results, "multidevs=remap"))
        .arg("-kernel")
        .arg(unpacked.join("boot").join(format!("vmlinuz-{version}")))
        .arg("-initrd")
        .arg(initramfs)
        .args(["-append", &append])
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .expect("timeout, of coreutils");
    let begin = Instant::now();
    guest.wait().unwrap();
    let said = String::from_utf8_lossy(&fs::read(&console).unwrap()).into_owned();
    assert!(
        said.contains("GUEST: done"),
        "the guest did not finish:\n{said}"
    );
    eprintln!("the guest took {} s", begin.elapsed().as_secs());
    every_case_ran(&results);
    results
}

/// A case that was asked for and broke off before tunproof ran leaves only what its break said.
fn every_case_ran(results: &Path) {
    let names: Vec<String> = fs::read_dir(results)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    for case in names.iter().filter_map(|name| name.strip_suffix(".break")) {
        let ran = names.iter().any(|name| {
            let rest = name.strip_prefix(case);
            rest.is_some_and(|rest| rest.starts_with('.') && rest.ends_with(".facts"))
        });
        let said = fs::read_to_string(results.join(format!("{case}.break"))).unwrap();
        assert!(
            ran,
            "the guest did not get past the break of {case}:\n{said}"
        );
    }
}

/// busybox, the modules a root over 9p needs, and `guest/init.sh`.
fn initramfs(repository: &Path, folder: &Path, version: &str) -> PathBuf {
    let tree = folder.join("initramfs");
    let _ = fs::remove_dir_all(&tree);
    for place in ["bin", "modules", "proc", "sys", "dev"] {
        fs::create_dir_all(tree.join(place)).unwrap();
    }
    fs::copy("/bin/busybox", tree.join("bin/busybox"))
        .expect("/bin/busybox: install busybox-static");
    fs::copy(repository.join("tests/guest/init.sh"), tree.join("init")).unwrap();
    let script = format!(
        "set -e; chmod 755 init; touch modules/order
        for module in {}; do modprobe -d ../root -S {version} --show-depends $module; done |
        awk '$1 == \"insmod\" && !seen[$2]++ {{ print $2 }}' |
        while read -r file; do
            name=$(basename \"$file\" | sed 's/\\.ko.*/.ko/')
            case $file in
                *.xz) xz -dc \"$file\" ;;
                *.zst) zstd -qdc \"$file\" ;;
                *) cat \"$file\" ;;
            esac >modules/$name
            echo $name >>modules/order
        done
        find . | cpio -o -H newc --quiet >../initramfs.cpio",
        BOOT_MODULES.join(" ")
    );
    let packed = Command::new("sh")
        .args(["-c", &script])
        .current_dir(&tree)
        .output()
        .unwrap();
    assert!(
        packed.status.success(),
        "packing the initramfs: {}",
        String::from_utf8_lossy(&packed.stderr)
    );
    folder.join("initramfs.cpio")
}

/// The pattern of the cases a person asked for; empty for all.
pub(crate) fn only() -> String {
    std::env::var("GUEST_ONLY").unwrap_or_default()
}
