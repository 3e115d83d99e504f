//! Files that are written whole or not at all.

use std::fs;
use std::fs::File;
use std::fs::OpenOptions;
use std::fs::Permissions;
use std::io;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::fs::fchown;
use std::path::Path;
use std::path::PathBuf;

use nix::fcntl::AT_FDCWD;
use nix::fcntl::AtFlags;
use nix::unistd::linkat;

/// A file that is there under its name once it is whole; what was there before is there until then. What is no regular
/// file, such as a pipe, is written to as it is.
#[derive(Debug)]
pub(super) struct Whole {
    file: File,
    /// Where it will stand; `None` of what is written to as it is.
    target: Option<PathBuf>,
    /// Where it stands until it is whole, if it has a name until then.
    draft: Option<PathBuf>,
}

/// Who may read a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Readers {
    /// Its owner alone.
    Owner,
    /// Everybody. Who reads it may own its folder: what stands there under its name is replaced, and not followed.
    All,
    /// Who could read the file that it replaces; where there is none, whoever the umask lets.
    Usual,
}

impl Whole {
    /// A file of which nothing is written yet.
    pub(super) fn begin(path: &Path, readers: Readers) -> io::Result<Whole> {
        let Some(target) = replaceable(path, readers)? else {
            return Ok(Whole {
                file: OpenOptions::new().write(true).open(path)?,
                target: None,
                draft: None,
            });
        };
        let mode = match readers {
            Readers::Owner | Readers::All => 0o600,
            Readers::Usual => 0o666,
        };
        let (draft, file) = match nameless(&target, mode) {
            Some(file) => (None, file),
            None => draft(&target, mode).map(|(draft, file)| (Some(draft), file))?,
        };
        let whole = Whole {
            file,
            target: Some(target),
            draft,
        };
        match readers {
            Readers::Owner => {}
            Readers::All => whole.set_mode(0o644)?,
            Readers::Usual => whole.keep_readers()?,
        }
        Ok(whole)
    }

    fn set_mode(&self, mode: u32) -> io::Result<()> {
        self.file.set_permissions(Permissions::from_mode(mode))
    }

    /// That it has the owner and the mode of the file that it replaces.
    fn keep_readers(&self) -> io::Result<()> {
        let Some(known) = self.target.as_ref().and_then(|it| fs::metadata(it).ok()) else {
            return Ok(());
        };
        self.set_mode(known.mode() & 0o777)?;
        // Only root may give a file away; who may not has written somebody else's, and now has one of his own.
        let _ = fchown(&self.file, Some(known.uid()), Some(known.gid()));
        Ok(())
    }

    /// Writes what comes next.
    pub(super) fn add(&mut self, content: &[u8]) -> io::Result<()> {
        self.file.write_all(content)
    }

    /// That it is whole.
    pub(super) fn end(mut self) -> io::Result<()> {
        let Some(target) = &self.target else {
            return Ok(());
        };
        self.file.sync_all()?;
        let draft = match self.draft.take() {
            Some(draft) => draft,
            None => name(&self.file, target)?,
        };
        fs::rename(self.draft.insert(draft), target)?;
        self.draft = None;
        Ok(())
    }
}

impl Drop for Whole {
    fn drop(&mut self) {
        if let Some(draft) = &self.draft {
            // What did not become whole need not stay; that it stays is no other failure.
            let _ = fs::remove_file(draft);
        }
    }
}

/// Whether [`Whole::begin`] would have a place to write to.
pub(super) fn check(path: &Path, readers: Readers) -> io::Result<()> {
    match replaceable(path, readers)? {
        Some(target) if nameless(&target, 0o600).is_none() => {
            fs::remove_file(draft(&target, 0o600)?.0)
        }
        _ => Ok(()),
    }
}

/// The file that a path leads to, if it is a regular one or none yet.
fn replaceable(path: &Path, readers: Readers) -> io::Result<Option<PathBuf>> {
    match fs::metadata(path) {
        _ if readers == Readers::All => match fs::symlink_metadata(path) {
            Ok(metadata) if metadata.is_dir() => Err(io::ErrorKind::IsADirectory.into()),
            _ => Ok(Some(path.to_owned())),
        },
        Ok(metadata) if metadata.is_dir() => Err(io::ErrorKind::IsADirectory.into()),
        Ok(metadata) if metadata.is_file() => fs::canonicalize(path).map(Some),
        Ok(_) => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Some(path.to_owned())),
        Err(error) => Err(error),
    }
}

/// A new file without a name, of which a kill leaves nothing, if the file system has such.
fn nameless(target: &Path, mode: u32) -> Option<File> {
    let folder = folder(target);
    let mut options = OpenOptions::new();
    options.write(true).custom_flags(libc::O_TMPFILE).mode(mode);
    options.open(folder).ok()
}

/// Gives a file without a name one beside the one that it shall become.
fn name(file: &File, target: &Path) -> io::Result<PathBuf> {
    let own = format!("/proc/self/fd/{}", file.as_raw_fd());
    let draft = beside(target)?;
    linkat(
        AT_FDCWD,
        own.as_str(),
        AT_FDCWD,
        &draft,
        AtFlags::AT_SYMLINK_FOLLOW,
    )?;
    Ok(draft)
}

fn folder(target: &Path) -> &Path {
    match target.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    }
}

/// A new file beside the one that it shall become.
fn draft(target: &Path, mode: u32) -> io::Result<(PathBuf, File)> {
    let draft = beside(target)?;
    let mut options = OpenOptions::new();
    let file = options
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&draft)?;
    Ok((draft, file))
}

fn beside(target: &Path) -> io::Result<PathBuf> {
    let name = target.file_name().ok_or(io::ErrorKind::InvalidFilename)?;
    let mut hidden = std::ffi::OsString::from(".");
    hidden.push(name);
    hidden.push(format!(".{:08x}", rand::random::<u32>()));
    Ok(target.with_file_name(hidden))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn write(path: &Path, content: &[u8]) -> io::Result<()> {
        let mut file = Whole::begin(path, Readers::Owner)?;
        file.add(content)?;
        file.end()
    }

    /// A folder that is removed at the test's end.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Folder {
            let name = format!("tunproof-whole-{}-{name}", std::process::id());
            let folder = std::env::temp_dir().join(name);
            fs::create_dir(&folder).unwrap();
            Folder(folder)
        }

        fn names(&self) -> Vec<String> {
            let entries = fs::read_dir(&self.0).unwrap();
            let name = |entry: fs::DirEntry| entry.file_name().into_string().unwrap();
            let mut names: Vec<_> = entries.map(|entry| name(entry.unwrap())).collect();
            names.sort();
            names
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn a_file_is_replaced_and_its_owner_alone_may_read_it() {
        let folder = Folder::new("replace");
        let (file, link) = (folder.0.join("case"), folder.0.join("link"));
        fs::write(&file, "before").unwrap();
        symlink("case", &link).unwrap();
        check(&link, Readers::Owner).unwrap();
        assert_eq!(fs::read(&file).unwrap(), b"before");
        write(&link, b"after").unwrap();
        assert_eq!(fs::read(&file).unwrap(), b"after");
        assert_eq!(fs::metadata(&file).unwrap().mode() & 0o777, 0o600);
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(folder.names(), ["case", "link"]);
    }

    #[test]
    fn what_others_may_have_put_there_is_not_followed() {
        let folder = Folder::new("follow");
        let (other, link) = (folder.0.join("shadow"), folder.0.join("it.prom"));
        fs::write(&other, "secret").unwrap();
        fs::set_permissions(&other, Permissions::from_mode(0o600)).unwrap();
        symlink("shadow", &link).unwrap();
        check(&link, Readers::All).unwrap();
        let mut file = Whole::begin(&link, Readers::All).unwrap();
        file.add(b"said").unwrap();
        file.end().unwrap();
        assert_eq!(fs::read(&other).unwrap(), b"secret");
        assert_eq!(fs::metadata(&other).unwrap().mode() & 0o777, 0o600);
        assert!(fs::symlink_metadata(&link).unwrap().is_file());
        assert_eq!(fs::read(&link).unwrap(), b"said");
    }

    #[test]
    fn a_file_that_did_not_become_whole_leaves_what_was_there() {
        let folder = Folder::new("half");
        let file = folder.0.join("case");
        fs::write(&file, "before").unwrap();
        let mut half = Whole::begin(&file, Readers::Owner).unwrap();
        half.add(b"aft").unwrap();
        // Not even a kill at this moment would leave anything, where files without a name are to be had.
        if nameless(&file, 0o600).is_some() {
            assert_eq!(folder.names(), ["case"]);
        }
        drop(half);
        assert_eq!(folder.names(), ["case"]);
        assert_eq!(fs::read(&file).unwrap(), b"before");
    }

    #[test]
    fn who_may_read_it_is_as_asked_or_as_before() {
        let folder = Folder::new("readers");
        let mode = |name: &str, readers, before: Option<u32>| {
            let file = folder.0.join(name);
            if let Some(mode) = before {
                fs::write(&file, "before").unwrap();
                fs::set_permissions(&file, Permissions::from_mode(mode)).unwrap();
            }
            let mut whole = Whole::begin(&file, readers).unwrap();
            whole.add(b"after").unwrap();
            whole.end().unwrap();
            assert_eq!(fs::read(&file).unwrap(), b"after");
            fs::metadata(&file).unwrap().mode() & 0o777
        };
        let plain = folder.0.join("plain");
        File::create(&plain).unwrap();
        let usual = fs::metadata(&plain).unwrap().mode() & 0o777;
        assert_eq!(mode("new", Readers::Usual, None), usual);
        assert_eq!(mode("old", Readers::Usual, Some(0o640)), 0o640);
        assert_eq!(mode("open", Readers::All, Some(0o600)), 0o644);
        assert_eq!(mode("shut", Readers::Owner, Some(0o644)), 0o600);
    }

    #[test]
    fn a_draft_with_a_name_is_removed() {
        let folder = Folder::new("draft");
        let target = Some(folder.0.join("case"));
        let (path, file) = draft(&folder.0.join("case"), 0o600).unwrap();
        let draft = Some(path);
        let half = Whole {
            file,
            target,
            draft,
        };
        assert_eq!(folder.names().len(), 1);
        drop(half);
        assert_eq!(folder.names(), [""; 0]);
    }

    #[test]
    fn what_is_no_file_is_written_to_and_stays() {
        write(Path::new("/dev/null"), b"gone").unwrap();
        assert!(!fs::metadata("/dev/null").unwrap().is_file());
        let full = write(Path::new("/dev/full"), b"too much").unwrap_err();
        assert_eq!(full.kind(), io::ErrorKind::StorageFull);
        assert!(!fs::metadata("/dev/full").unwrap().is_file());
    }

    #[test]
    fn where_nothing_can_be_written_is_known_before() {
        let folder = Folder::new("nowhere");
        let missing = folder.0.join("missing/case");
        for result in [check(&missing, Readers::All), write(&missing, b"")] {
            assert_eq!(result.unwrap_err().kind(), io::ErrorKind::NotFound);
        }
        for readers in [Readers::Owner, Readers::All] {
            let is_folder = check(&folder.0, readers).unwrap_err();
            assert_eq!(is_folder.kind(), io::ErrorKind::IsADirectory);
        }
        assert_eq!(folder.names(), [""; 0]);
    }
}
