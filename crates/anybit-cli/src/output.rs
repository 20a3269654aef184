//! What the command writes: lines to stdout and stderr, and files.

use std::fs;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use crate::error::Error;

/// The exit code of an interrupted command: 128 and the number of the signal, as shells have it.
pub(crate) const INTERRUPTED: u8 = 130;

/// Prints text to stdout.
pub(crate) fn print(text: &str) -> Result<(), Error> {
    let mut stdout = io::stdout().lock();
    stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
        .map_err(Error::Print)
}

/// Prints a line to stderr. A closed stderr is no reason to fail.
pub(crate) fn note(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// Writes a file whole or not at all: into a temporary file beside it, which then takes its name.
///
/// A path that exists and is no regular file, such as `/dev/null`, is written to as it is.
pub(crate) fn write_file(
    path: &Path,
    write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> Result<(), Error> {
    write_file_with(path, |writer| {
        write(writer).map_err(|source| Error::Write {
            path: path.to_owned(),
            source,
        })
    })
}

/// The same for work that has errors of its own, which leave no file either, and a result.
pub(crate) fn write_file_with<T>(
    path: &Path,
    write: impl FnOnce(&mut dyn Write) -> Result<T, Error>,
) -> Result<T, Error> {
    let failed = |source| Error::Write {
        path: path.to_owned(),
        source,
    };
    if fs::metadata(path).is_ok_and(|metadata| !metadata.is_file()) {
        let mut file = BufWriter::new(
            fs::OpenOptions::new()
                .write(true)
                .open(path)
                .map_err(failed)?,
        );
        let result = write(&mut file)?;
        file.flush().map_err(failed)?;
        return Ok(result);
    }
    // A link stays one: the file that it leads to is replaced.
    let target = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let mut builder = tempfile::Builder::new();
    builder.prefix(".anybit-");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        // As any new file; the umask takes away from it.
        builder.permissions(fs::Permissions::from_mode(0o666));
    }
    let temporary = builder.tempfile_in(folder_of(&target)).map_err(failed)?;
    let mut file = BufWriter::new(temporary);
    let result = write(&mut file)?;
    let temporary = file
        .into_inner()
        .map_err(|error| failed(error.into_error()))?;
    temporary.as_file().sync_all().map_err(failed)?;
    temporary
        .persist(&target)
        .map_err(|error| failed(error.error))?;
    Ok(result)
}

/// Checks that a file can be written before the work that makes it.
pub(crate) fn check_folder(path: &Path) -> Result<(), Error> {
    let folder = folder_of(path);
    if path.file_name().is_none() || path.is_dir() || !folder.is_dir() {
        return Err(Error::OutputPath {
            path: path.to_owned(),
        });
    }
    Ok(())
}

fn folder_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(folder) if folder != Path::new("") => folder.to_owned(),
        _ => PathBuf::from("."),
    }
}
