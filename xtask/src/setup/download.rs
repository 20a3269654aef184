//! Folders for downloads.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// A folder for one download, beside its destination so that a rename suffices; removed at the end.
pub(super) struct Download {
    pub(super) folder: PathBuf,
}

impl Download {
    const PREFIX: &'static str = ".download-";

    pub(super) fn begin(parent: &Path) -> io::Result<Self> {
        fs::create_dir_all(parent)?;
        Self::remove_stale(parent);
        let folder = parent.join(format!("{}{}", Self::PREFIX, std::process::id()));
        fs::create_dir_all(&folder)?;
        Ok(Self { folder })
    }

    /// Removes what interrupted downloads left, but nothing so young that it may be in use.
    fn remove_stale(parent: &Path) {
        let old = |path: &Path| {
            let modified = fs::metadata(path).and_then(|data| data.modified());
            modified.is_ok_and(|time| {
                SystemTime::now()
                    .duration_since(time)
                    .is_ok_and(|age| age > Duration::from_secs(24 * 60 * 60))
            })
        };
        for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
            let ours = entry
                .file_name()
                .to_string_lossy()
                .starts_with(Self::PREFIX);
            if ours && old(&entry.path()) {
                // What cannot be removed only takes up space.
                let _ = fs::remove_dir_all(entry.path());
            }
        }
    }

    /// The file with such an ending that was downloaded.
    pub(super) fn file(&self, extension: &str) -> Option<PathBuf> {
        fs::read_dir(&self.folder)
            .ok()?
            .filter_map(|entry| Some(entry.ok()?.path()))
            .find(|path| path.extension() == Some(OsStr::new(extension)))
    }
}

impl Drop for Download {
    fn drop(&mut self) {
        // What cannot be removed only takes up space.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

#[cfg(test)]
mod tests {
    use super::super::Scratch;
    use super::*;

    #[test]
    fn a_download_leaves_nothing_behind() {
        let scratch = Scratch::new("download");
        let download = Download::begin(&scratch.0).expect("the folder is writable");
        let folder = download.folder.clone();
        fs::write(folder.join("half.whl"), b"").expect("writable");
        assert_eq!(download.file("whl"), Some(folder.join("half.whl")));
        drop(download);
        assert!(!folder.exists());
    }
}
