//! The file with the master keys. It lies apart from the database (security 30), is read only
//! where nobody else could have read it (security 34), and is made once, never written over.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use semilla_core::entropy::Entropy;
use semilla_core::seal::{Keyring, MasterKey};
use zeroize::Zeroizing;

use super::ConfigError;

/// The largest file: a line has less than 80 bytes.
const FILE_BYTES_MAX: u64 = 16 * 1024;

/// Makes the file with a new key, and its folder. Only its owner may read either.
///
/// # Errors
/// Where there is such a file already, or it cannot be written.
pub fn create(path: &Path, entropy: &dyn Entropy) -> Result<(), ConfigError> {
    let failed = |error| ConfigError::File { path: path.to_owned(), error };
    let write = || -> io::Result<()> {
        let folder =
            path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        file.write_all(MasterKey::generate(entropy).to_line().as_bytes())?;
        file.sync_all()?;
        // The name has to last as well: what is sealed from now on is lost without it.
        File::open(folder)?.sync_all()
    };
    write().map_err(failed)
}

/// Reads the keys: the first line's seals, the others open what they sealed before. Empty lines and
/// lines that begin with `#` do not count.
///
/// # Errors
/// Where the file is missing, is no plain file, belongs to somebody else, may be read or written by
/// others than its owner, or holds no key (security 33, 34).
pub fn load(path: &Path) -> Result<Keyring, ConfigError> {
    let text = text(path)?;
    let mut keys = Vec::new();
    for (place, line) in text.lines().enumerate() {
        if line.trim().is_empty() || line.starts_with('#') {
            continue;
        }
        let key = MasterKey::parse(line);
        keys.push(key.map_err(|error| ConfigError::MasterKey {
            path: path.to_owned(),
            line: place + 1,
            error,
        })?);
    }
    let mut keys = keys.into_iter();
    let first = keys.next().ok_or_else(|| refused(path, "holds no key"))?;
    Ok(Keyring::new(first, keys))
}

/// The text of the file, where nobody else could have read it.
fn text(path: &Path) -> Result<Zeroizing<String>, ConfigError> {
    let failed = |error| ConfigError::File { path: path.to_owned(), error };
    // What is looked at is what is read: the open file, not its name.
    let file = File::open(path).map_err(failed)?;
    check(path, &file.metadata().map_err(failed)?)?;
    let mut text = Zeroizing::new(String::with_capacity(4096));
    file.take(FILE_BYTES_MAX).read_to_string(&mut text).map_err(failed)?;
    Ok(text)
}

/// Puts a new key before the others: from the moment the file is read again it seals. The file is
/// replaced as a whole, so that whoever reads it finds the one or the other.
///
/// # Errors
/// As [`load`], and where it cannot be written.
pub fn add(path: &Path, entropy: &dyn Entropy) -> Result<(), ConfigError> {
    let text = text(path)?;
    let mut both = Zeroizing::new(String::with_capacity(text.len() + 128));
    both.push_str(&MasterKey::generate(entropy).to_line());
    both.push_str(&text);
    replace(path, &both)
}

/// Destroys every key but the first one.
///
/// # Errors
/// As [`add`].
pub fn retire_older(path: &Path) -> Result<(), ConfigError> {
    let text = text(path)?;
    let is_key = |line: &&str| !line.trim().is_empty() && !line.starts_with('#');
    let first = text.lines().find(is_key).ok_or_else(|| refused(path, "holds no key"))?;
    replace(path, &Zeroizing::new(format!("{first}\n")))
}

fn replace(path: &Path, text: &str) -> Result<(), ConfigError> {
    let write = || -> io::Result<()> {
        let folder =
            path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let unfinished = path.with_extension("unfinished");
        // What an interrupted change left was never used.
        match fs::remove_file(&unfinished) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut old = OpenOptions::new().write(true).open(path)?;
        let length = old.metadata()?.len();
        let mut file =
            OpenOptions::new().write(true).create_new(true).mode(0o600).open(&unfinished)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&unfinished, path)?;
        File::open(folder)?.sync_all()?;
        // The file that was replaced has no name any more; where its blocks are written over in
        // place, nothing of it is left.
        io::copy(&mut io::repeat(0).take(length), &mut old)?;
        old.sync_all()
    };
    write().map_err(|error| ConfigError::File { path: path.to_owned(), error })
}

fn refused(path: &Path, what: &str) -> ConfigError {
    ConfigError::Unsafe(format!("the master key file {} {what}", path.display()))
}

fn check(path: &Path, file: &fs::Metadata) -> Result<(), ConfigError> {
    if !file.is_file() {
        return Err(refused(path, "is not a plain file"));
    }
    let mode = file.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        let what = format!(
            "may be used by others (mode {mode:03o}): chmod 600 it, and think of who has read it"
        );
        return Err(refused(path, &what));
    }
    if own_user().is_some_and(|own| own != file.uid()) {
        return Err(refused(path, "belongs to another user than the one this server runs as"));
    }
    Ok(())
}

/// The user that this process acts as, where the system tells in a file (proc(5): `Uid`, second
/// field). Elsewhere it is not known, and only the mode counts.
fn own_user() -> Option<u32> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let users = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    users.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use semilla_core::id::CompanyId;
    use semilla_core::seal::Purpose;

    use super::*;
    use crate::app::SystemEntropy;

    const PURPOSE: Purpose<'_> = Purpose::Other { kind: "test", company: CompanyId::BANK, id: "x" };

    fn told(path: &Path) -> String {
        load(path).err().expect("refused").to_string()
    }

    #[test]
    fn a_new_key_seals_and_a_restart_opens() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("keys/master.key");
        let entropy = SystemEntropy::default();
        create(&path, &entropy).expect("made");
        let sealed = load(&path).expect("keys").seal(b"plain", &PURPOSE, &entropy);
        assert_eq!(*load(&path).expect("keys").open(&sealed, &PURPOSE).expect("opened"), b"plain");
        assert!(create(&path, &entropy).is_err(), "never written over");
        for (path, mode) in [(path.as_path(), 0o600), (path.parent().expect("a folder"), 0o700)] {
            assert_eq!(fs::metadata(path).expect("there").permissions().mode() & 0o777, mode);
        }
    }

    #[test]
    fn the_first_key_seals_and_the_others_still_open() {
        let folder = tempfile::tempdir().expect("a folder");
        let (old, new) = (folder.path().join("old"), folder.path().join("new"));
        let entropy = SystemEntropy::default();
        create(&old, &entropy).expect("made");
        create(&new, &entropy).expect("made");
        let sealed = load(&old).expect("keys").seal(b"plain", &PURPOSE, &entropy);
        let lines = format!(
            "# in use\n{}\n# before\n{}",
            fs::read_to_string(&new).expect("read"),
            fs::read_to_string(&old).expect("read")
        );
        fs::write(&new, lines).expect("written");
        let both = load(&new).expect("keys");
        assert!(both.open(&sealed, &PURPOSE).is_ok());
        assert_ne!(both.seal(b"", &PURPOSE, &entropy).key_id(), sealed.key_id());
    }

    #[test]
    fn security_94_a_key_is_put_before_the_others_and_the_older_ones_are_destroyed() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("master.key");
        let entropy = SystemEntropy::default();
        create(&path, &entropy).expect("made");
        let old = File::open(&path).expect("held");
        let sealed = load(&path).expect("keys").seal(b"plain", &PURPOSE, &entropy);
        add(&path, &entropy).expect("added");
        let both = load(&path).expect("keys");
        assert!(both.open(&sealed, &PURPOSE).is_ok() && both.sealing() != sealed.key_id());
        add(&path, &entropy).expect("added");
        assert_eq!(load(&path).expect("keys").ids().count(), 3);
        retire_older(&path).expect("retired");
        let left = load(&path).expect("keys");
        assert_eq!(left.ids().count(), 1);
        assert!(left.open(&sealed, &PURPOSE).is_err());
        assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 1);
        let mut bytes = Vec::new();
        (&old).read_to_end(&mut bytes).expect("read");
        assert!(!bytes.is_empty() && bytes.iter().all(|byte| *byte == 0), "the old file is erased");
    }

    #[test]
    fn security_33_and_34_a_key_that_others_could_know_or_that_is_none_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("master.key");
        assert!(told(&path).contains("No such file"));
        create(&path, &SystemEntropy::default()).expect("made");
        for mode in [0o644, 0o640, 0o604, 0o660, 0o602, 0o610] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("set");
            assert!(told(&path).contains(&format!("mode {mode:o}")));
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o400)).expect("set");
        assert!(load(&path).is_ok(), "read-only will do");
        assert!(told(folder.path()).contains("not a plain file"));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("set");
        for (text, why) in
            [("", "holds no key"), ("# nothing\n\n", "holds no key"), ("#\nid.short\n", "line 2")]
        {
            fs::write(&path, text).expect("written");
            let told = told(&path);
            assert!(told.contains(why) && !told.contains("short"), "{told}");
        }
    }

    #[test]
    fn the_user_of_this_process_owns_what_it_makes() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        if let Some(own) = own_user() {
            assert_eq!(file.as_file().metadata().expect("there").uid(), own);
        }
    }
}
