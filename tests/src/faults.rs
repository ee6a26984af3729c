//! A disk that fails on demand under a server in a process of its own: a few lines of C between it
//! and the system, so that no privilege is needed and the server is the very program people run.

use std::io::Write;
use std::process::{Command, Stdio};

/// How the disk fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Not at all.
    None,
    /// It is full.
    Full,
    /// It cannot say whether it kept what it was given.
    Unsynced,
}

/// The disk.
pub struct Disk(tempfile::TempDir);

impl Disk {
    /// One that works so far.
    pub fn make() -> Self {
        let disk = Self(tempfile::tempdir().expect("a folder"));
        let mut compiler = Command::new("cc")
            .args(["-shared", "-fPIC", "-x", "c", "-", "-o"])
            .arg(disk.0.path().join("faults.so"))
            .stdin(Stdio::piped())
            .spawn()
            .expect("a C compiler, which SQLite needs as well");
        let mut source = compiler.stdin.take().expect("its input");
        source.write_all(include_bytes!("faults.c")).expect("written");
        drop(source);
        assert!(compiler.wait().expect("its status").success());
        disk.fails(Fault::None);
        disk
    }

    /// What the environment of a server on this disk holds.
    pub fn environment(&self) -> Vec<(&'static str, String)> {
        let path = |name: &str| self.0.path().join(name).to_str().expect("a path").to_owned();
        vec![("LD_PRELOAD", path("faults.so")), ("SEMILLA_TEST_FAULT", path("fault"))]
    }

    /// From now on it fails so.
    pub fn fails(&self, how: Fault) {
        let letter = match how {
            Fault::None => "-",
            Fault::Full => "f",
            Fault::Unsynced => "u",
        };
        std::fs::write(self.0.path().join("fault"), letter).expect("written");
    }
}
