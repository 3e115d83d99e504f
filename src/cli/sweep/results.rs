//! Where a sweep's results go.

use std::fs::File;
use std::fs::OpenOptions;
use std::io;
use std::io::BufWriter;
use std::io::Seek;
use std::io::SeekFrom;
use std::io::Write;
use std::path::Path;
use std::path::PathBuf;

use crate::cli::failure::Failure;

/// How many octets are written at once, if they come that fast: each call of the kernel costs.
const AT_ONCE: usize = 64 << 10;

/// Where results go.
pub(super) struct Results {
    place: Place,
    /// Octets, of a sweep that went on those before it was cut, too.
    pub(super) written: u64,
}

enum Place {
    Stdout(BufWriter<io::Stdout>),
    File(BufWriter<File>, PathBuf),
    /// Nobody reads stdout any more.
    Closed,
}

impl Results {
    /// Opens the results, for what follows the first `written` octets.
    pub(super) fn open(path: Option<&Path>, written: u64) -> Result<Results, Failure> {
        let place = match path {
            None => Place::Stdout(BufWriter::with_capacity(AT_ONCE, io::stdout())),
            Some(path) => {
                let file = open(path, written).map_err(|source| cannot_write(path, source))?;
                Place::File(BufWriter::with_capacity(AT_ONCE, file), path.to_owned())
            }
        };
        Ok(Results { place, written })
    }

    /// Cuts off what follows already, now that there will be something else.
    pub(super) fn begin(&mut self) -> Result<(), Failure> {
        let Place::File(file, path) = &mut self.place else {
            return Ok(());
        };
        let file = file.get_mut();
        let cut = match file.metadata().is_ok_and(|metadata| metadata.is_file()) {
            true => file
                .set_len(self.written)
                .and_then(|()| file.seek(SeekFrom::Start(self.written)).map(drop)),
            false => Ok(()),
        };
        cut.map_err(|source| cannot_write(path, source))
    }

    pub(super) fn write(&mut self, text: &str) -> Result<(), Failure> {
        self.written += text.len() as u64;
        self.try_to(|place| place.write_all(text.as_bytes()))
    }

    pub(super) fn flush(&mut self) -> Result<(), Failure> {
        self.try_to(|place| place.flush())
    }

    /// Has what was written outlast a crash of the machine.
    pub(super) fn sync(&mut self) -> Result<(), Failure> {
        self.flush()?;
        match &self.place {
            Place::File(file, path) => {
                let file = file.get_ref();
                let is_file = file.metadata().is_ok_and(|metadata| metadata.is_file());
                let synced = if is_file { file.sync_data() } else { Ok(()) };
                synced.map_err(|source| cannot_write(path, source))
            }
            Place::Stdout(_) | Place::Closed => Ok(()),
        }
    }

    fn try_to(
        &mut self,
        act: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> Result<(), Failure> {
        match &mut self.place {
            Place::Stdout(stdout) => match act(stdout) {
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                    self.place = Place::Closed;
                    Ok(())
                }
                done => done.map_err(|source| Failure::Write {
                    what: "stdout".to_owned(),
                    source,
                }),
            },
            Place::File(file, path) => act(file).map_err(|source| cannot_write(path, source)),
            Place::Closed => Ok(()),
        }
    }

    /// Whether nobody reads them any more.
    pub(super) fn is_closed(&self) -> bool {
        matches!(self.place, Place::Closed)
    }

    /// Whether they go to stdout.
    pub(super) fn is_stdout(&self) -> bool {
        matches!(self.place, Place::Stdout(_))
    }
}

fn open(path: &Path, written: u64) -> io::Result<File> {
    let mut options = OpenOptions::new();
    let file = options
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)?;
    let metadata = file.metadata()?;
    if metadata.is_file() && metadata.len() < written {
        let error = "it is shorter than what was written to it before";
        return Err(io::Error::other(error));
    }
    Ok(file)
}

pub(super) fn cannot_write(path: &Path, source: io::Error) -> Failure {
    Failure::Write {
        what: format!("`{}`", path.display()),
        source,
    }
}
