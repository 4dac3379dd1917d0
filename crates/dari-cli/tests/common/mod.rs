//! What the black-box tests share: a home of their own, runs of the binary, pictures.
// Each test file is a program of its own and uses a part of this.
#![allow(dead_code)]

pub mod pictures;
pub mod recipe;

use std::ffi::OsStr;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

/// Longer than any run here takes, even on a busy machine: a hang is a failure.
const LONGEST: Duration = Duration::from_secs(300);

/// The binary under test.
pub fn binary() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_dari"))
}

/// A file or folder of the repository.
pub fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path)
}

/// One of the project's own pictures.
pub fn sample(name: &str) -> PathBuf {
    repository("samples").join(name)
}

/// A tiny checkpoint.
pub fn fixture(name: &str) -> PathBuf {
    repository("fixtures/parity").join(name)
}

/// A temporary home: the working folder, the index and the hub's cache of one test.
pub struct Home {
    folder: TempDir,
}

impl Home {
    /// An empty one.
    pub fn new() -> Home {
        Home { folder: tempfile::tempdir().expect("a temporary folder") }
    }

    /// A path in it.
    pub fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a file, and the folders above it.
    pub fn write(&self, name: impl AsRef<Path>, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
        std::fs::write(&path, bytes).expect("written");
        path
    }

    /// Copies a file into it.
    pub fn copy(&self, from: &Path, name: impl AsRef<Path>) -> PathBuf {
        self.write(name, std::fs::read(from).expect("read"))
    }

    /// A folder in it.
    pub fn folder(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir_all(&path).expect("a folder");
        path
    }

    /// Any program in this home's surroundings, those of the user shut out.
    pub fn program(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command
            .current_dir(self.folder.path())
            .env("DARI_DATA_HOME", self.path("data"))
            .env("HF_HOME", self.path("hub"))
            .env("HF_HUB_OFFLINE", "1")
            .env("DARI_LANG", "en")
            .stdin(Stdio::null());
        for variable in ["DARI_MODEL", "HF_HUB_CACHE", "HF_TOKEN", "HF_ENDPOINT"] {
            command.env_remove(variable);
        }
        command
    }

    /// The binary with these arguments.
    pub fn command<I: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = I>) -> Command {
        let mut command = self.program(binary());
        command.args(arguments);
        command
    }

    /// Runs the binary.
    pub fn dari<I: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = I>) -> Ran {
        run(self.command(arguments))
    }
}

/// Runs a command to its end.
pub fn run(command: Command) -> Ran {
    let line = format!("{command:?}");
    let output = assert_cmd::Command::from_std(command).timeout(LONGEST).output().expect("the binary runs");
    let ran = Ran {
        line,
        code: output.status.code(),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    };
    ran.check_manners();
    ran
}

/// Waits until `ready` says so; false after a minute.
pub fn wait_until(mut ready: impl FnMut() -> bool) -> bool {
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(60) {
        if ready() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    false
}

/// Sends a process what Ctrl-C sends.
#[cfg(unix)]
pub fn interrupt(process: u32) {
    let sent = Command::new("kill").args(["-INT", &process.to_string()]).status();
    assert!(sent.expect("kill runs").success());
}

/// A run that has ended.
pub struct Ran {
    line: String,
    /// The exit code; none after a signal.
    pub code: Option<i32>,
    /// What it said on stdout.
    pub out: String,
    /// What it said on stderr.
    pub err: String,
}

impl Ran {
    /// Whatever happens: no panic, no signal, one line a message, nothing said twice.
    fn check_manners(&self) {
        assert!(matches!(self.code, Some(0..=2)), "ended with {:?}\n{self}", self.code);
        assert!(!self.err.contains("panicked"), "{self}");
        assert!(!self.err.contains("RUST_BACKTRACE"), "{self}");
        assert!(!self.err.chars().any(|c| c.is_control() && c != '\n'), "{self}");
        for line in self.err.lines().filter(|line| line.starts_with("dari: ")) {
            check_line(line);
        }
    }

    /// Expects an exit code.
    #[track_caller]
    pub fn exits(self, code: i32) -> Ran {
        assert_eq!(self.code, Some(code), "{self}");
        self
    }

    /// Expects that all went well and nothing was complained of.
    #[track_caller]
    pub fn ok(self) -> Ran {
        assert_eq!(self.err, "", "{self}");
        self.exits(0)
    }

    /// The lines on stderr that tell of errors.
    pub fn errors(&self) -> Vec<&str> {
        let lines = self.err.lines();
        lines.filter(|line| line.starts_with("dari: error: ")).collect()
    }

    /// The lines on stderr that warn.
    pub fn warnings(&self) -> Vec<&str> {
        let lines = self.err.lines();
        lines.filter(|line| line.starts_with("dari: warning: ")).collect()
    }

    /// Expects one line and no more on stderr, an error that holds all these words.
    #[track_caller]
    pub fn one_error(&self, words: &[&str]) -> &str {
        assert_eq!(self.err.lines().count(), 1, "one line expected\n{self}");
        let errors = self.errors();
        assert_eq!(errors.len(), 1, "{self}");
        for word in words {
            assert!(errors[0].contains(word), "`{word}` is not named\n{self}");
        }
        errors[0]
    }

    /// Expects an error's line that names `name`, and only one.
    #[track_caller]
    pub fn names(&self, name: &str) {
        let errors = self.errors();
        let naming = errors.iter().filter(|line| line.contains(name)).count();
        assert_eq!(naming, 1, "one line that names {name} expected\n{self}");
    }

    /// stdout as JSON, one value a line.
    #[track_caller]
    pub fn json_lines(&self) -> Vec<Value> {
        let parse = |line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}\n{self}"));
        self.out.lines().map(parse).collect()
    }

    /// stdout as one line of JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        let mut lines = self.json_lines();
        assert_eq!(lines.len(), 1, "{self}");
        lines.remove(0)
    }
}

impl std::fmt::Display for Ran {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let short = |text: &str| text.chars().take(4000).collect::<String>();
        let (out, err) = (short(&self.out), short(&self.err));
        write!(f, "{}\nexit {:?}\nstdout:\n{out}\nstderr:\n{err}", self.line, self.code)
    }
}

/// A message says nothing twice, and does not fill the screen.
#[track_caller]
pub fn check_line(line: &str) {
    let parts: Vec<&str> = line.split(": ").collect();
    let twice = parts.windows(2).find(|pair| pair[0] == pair[1]);
    assert_eq!(twice, None, "said twice in one line: {line}");
    assert!(line.chars().count() < 1000, "a long line: {line}");
}

/// The numbers of a JSON array.
#[track_caller]
pub fn numbers(value: &Value) -> Vec<f64> {
    let array = value.as_array().expect("an array");
    array.iter().map(|x| x.as_f64().expect("a number")).collect()
}

/// A text member of a JSON object.
#[track_caller]
pub fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    let found = value[key].as_str();
    found.unwrap_or_else(|| panic!("no text `{key}` in {value}"))
}

/// Euclidean length.
pub fn length(vector: &[f64]) -> f64 {
    vector.iter().map(|x| x * x).sum::<f64>().sqrt()
}

/// The cosine of two vectors.
pub fn cosine(a: &[f64], b: &[f64]) -> f64 {
    let dot: f64 = a.iter().zip(b).map(|(x, y)| x * y).sum();
    dot / (length(a) * length(b))
}

/// An array of NumPy's format 1.0, two dimensions of little-endian f32.
pub struct Npy {
    /// `[rows, columns]`.
    pub shape: (usize, usize),
    /// The rows.
    pub rows: Vec<Vec<f32>>,
}

impl Npy {
    /// Reads one, by the format's description alone.
    pub fn read(path: &Path) -> Npy {
        let bytes = std::fs::read(path).expect("the array");
        assert_eq!(&bytes[..8], b"\x93NUMPY\x01\x00");
        let header = usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
        let start = 10 + header;
        assert_eq!(start % 64, 0, "the values begin at a multiple of 64");
        let text = std::str::from_utf8(&bytes[10..start]).expect("ASCII");
        assert!(text.ends_with('\n'));
        assert!(text.contains("'descr': '<f4'"), "{text}");
        assert!(text.contains("'fortran_order': False"), "{text}");
        let (_, shape) = text.split_once("'shape': (").expect("a shape");
        let (shape, _) = shape.split_once(')').expect("its end");
        let shape: Vec<usize> = shape.split(',').map(|n| n.trim().parse().expect("a size")).collect();
        let [rows, columns] = shape[..] else { panic!("two dimensions expected: {text}") };
        let (values, rest) = bytes[start..].as_chunks::<4>();
        assert!(rest.is_empty());
        assert_eq!(values.len(), rows * columns);
        let values: Vec<f32> = values.iter().map(|b| f32::from_le_bytes(*b)).collect();
        Npy { shape: (rows, columns), rows: values.chunks(columns).map(<[f32]>::to_vec).collect() }
    }
}

/// Runs a shell script in which `$DISK` is a folder on a disk of `size` (as in `64k`), which goes
/// when the script ends; `$DARI` is the binary. None where this machine lets nobody mount one.
pub fn on_small_disk(home: &Home, size: &str, script: &str) -> Option<std::process::Output> {
    let disk = home.folder("disk");
    let whole = format!("mount -t tmpfs -o size={size} none \"$DISK\" || exit 99\n{script}");
    for namespace in [&["-m"][..], &["-rm"]] {
        let mut command = home.program("unshare");
        command.args(namespace).args(["sh", "-c", &whole]).env("DISK", &disk).env("DARI", binary());
        match command.output() {
            Ok(output) if output.status.success() => return Some(output),
            Ok(output) if matches!(output.status.code(), Some(1 | 99)) => {}
            Ok(output) => panic!("the script ended with {output:?}"),
            Err(_) => {}
        }
    }
    skipped("no small disk can be mounted here: that takes Linux, and root or user namespaces");
    None
}

/// Tells why a test could not be made.
#[allow(clippy::print_stderr)]
pub fn skipped(why: &str) {
    // Past the capture of passing tests' output: a skip is told, and counted.
    let _ = writeln!(std::io::stderr(), "skipped: {why}");
}
