//! The hub: offline, and against a small server on this machine that speaks as the hub does.

use dari_files::hub::{self, Options, Progress};
use dari_files::{Error, Folder};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
const WEIGHTS: &[u8] = include_bytes!("fixtures/python.safetensors");

/// A hub with one model, owner/name.
struct Server {
    endpoint: String,
    /// Request lines with the two headers that matter.
    requests: Arc<Mutex<Vec<String>>>,
}

#[derive(Clone, Copy, PartialEq)]
enum Manner {
    Honest,
    /// Sends half of each body and closes.
    Breaks,
    /// Gives an etag that would be a path elsewhere.
    Deceives,
}

impl Server {
    fn start(files: Vec<(&'static str, Vec<u8>)>, manner: Manner) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&requests);
        // Ends with the test's process.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let _ = answer(stream, &files, manner, &seen);
            }
        });
        Server { endpoint, requests }
    }

    fn requests(&self) -> Vec<String> {
        std::mem::take(&mut self.requests.lock().unwrap())
    }
}

fn answer(
    mut stream: TcpStream,
    files: &[(&str, Vec<u8>)],
    manner: Manner,
    seen: &Mutex<Vec<String>>,
) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let (mut lines, mut range) = (Vec::new(), (0usize, usize::MAX));
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let line = line.trim_end().to_owned();
        if line.is_empty() {
            break;
        }
        let lower = line.to_lowercase();
        if let Some(bytes) = lower.strip_prefix("range: bytes=") {
            let (start, end) = bytes.split_once('-').unwrap();
            range = (start.parse().unwrap(), end.parse().unwrap_or(usize::MAX));
        }
        let matters = ["user-agent", "authorization"];
        if lines.is_empty() || matters.iter().any(|m| lower.starts_with(m)) {
            lines.push(line);
        }
    }
    seen.lock().unwrap().push(lines.join("; "));
    let path = lines[0].split(' ').nth(1).unwrap_or_default().to_owned();
    let (status, headers, body) = respond(&path, files, manner, range);
    let sent = match manner {
        Manner::Breaks if path.contains("/resolve/") && range.1 == usize::MAX => body.len() / 2,
        _ => body.len(),
    };
    write!(
        stream,
        "HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {}\r\n{headers}\r\n",
        body.len()
    )?;
    stream.write_all(&body[..sent])
}

fn respond(
    path: &str,
    files: &[(&str, Vec<u8>)],
    manner: Manner,
    range: (usize, usize),
) -> (&'static str, String, Vec<u8>) {
    if path == "/api/models/owner/name/revision/main" {
        let names: Vec<String> =
            files.iter().map(|(name, _)| format!(r#"{{"rfilename": "{name}"}}"#)).collect();
        let body = format!(r#"{{"sha": "{COMMIT}", "siblings": [{}]}}"#, names.join(","));
        return ("200 OK", String::new(), body.into_bytes());
    }
    if path.starts_with("/api/models/gated/") {
        return ("401 Unauthorized", String::new(), Vec::new());
    }
    if path.starts_with("/api/models/broken/") {
        return ("503 Service Unavailable", String::new(), Vec::new());
    }
    let name = path.strip_prefix(&format!("/owner/name/resolve/{COMMIT}/"));
    let file = name.and_then(|name| files.iter().position(|(n, _)| *n == name));
    let Some(index) = file else {
        return ("404 Not Found", String::new(), Vec::new());
    };
    let bytes = &files[index].1;
    let (start, end) = (range.0, range.1.saturating_add(1).min(bytes.len()));
    if start >= end && !bytes.is_empty() {
        return ("416 Range Not Satisfiable", String::new(), Vec::new());
    }
    let etag = match manner {
        Manner::Deceives => "../../../../elsewhere".to_owned(),
        _ => format!("e7a9{index}"),
    };
    let headers = format!(
        "ETag: \"{etag}\"\r\nX-Repo-Commit: {COMMIT}\r\nContent-Range: bytes {start}-{}/{}\r\n",
        end.saturating_sub(1),
        bytes.len()
    );
    ("206 Partial Content", headers, bytes[start..end].to_vec())
}

fn options(cache: &Path, endpoint: &str) -> Options {
    let cache = cache.display().to_string();
    let endpoint = endpoint.to_owned();
    Options::from_variables(|name| match name {
        "HF_HUB_CACHE" => Some(cache.clone()),
        "HF_ENDPOINT" => Some(endpoint.clone()),
        "HF_TOKEN" => Some("sesame".to_owned()),
        _ => None,
    })
}

fn fetch(options: &Options) -> Result<PathBuf, Error> {
    hub::fetch("owner/name", options, &mut |_| {})
}

fn problem(result: Result<PathBuf, Error>) -> String {
    let text = result.unwrap_err().to_string();
    assert!(!text.contains('\n') && !text.contains("sesame"), "{text}");
    text
}

fn model() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        (".gitattributes", b"x".to_vec()),
        ("config.json", b"{}".to_vec()),
        ("model.safetensors", WEIGHTS.to_vec()),
        ("onnx/model.onnx", b"x".to_vec()),
        ("pytorch_model.bin", b"x".to_vec()),
        ("tokenizer.json", b"{ }".to_vec()),
        ("../evil", b"x".to_vec()),
    ]
}

/// Nothing listens here: bound and closed again.
fn closed_port() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

#[test]
fn fetching_and_the_cache() {
    let cache = tempfile::tempdir().unwrap();
    let server = Server::start(model(), Manner::Honest);
    let options = options(cache.path(), &server.endpoint);
    let mut seen: Vec<(String, u64, u64)> = Vec::new();
    let path = hub::fetch("owner/name", &options, &mut |p: Progress<'_>| {
        seen.push((p.file.to_owned(), p.done, p.total));
    })
    .unwrap();
    let place = cache.path().join("models--owner--name");
    assert_eq!(path, place.join("snapshots").join(COMMIT));
    let folder = Folder::open(&path).unwrap();
    assert_eq!(folder.weights().unwrap().len(), 3);
    // Only what a model needs, in the standard layout.
    let listed = |path: &Path| {
        let entries = std::fs::read_dir(path).unwrap().flatten();
        let mut names: Vec<String> = entries.map(|entry| entry.file_name().into_string().unwrap()).collect();
        names.sort();
        names
    };
    let files = ["config.json", "model.safetensors", "tokenizer.json"];
    assert_eq!(listed(&path), files);
    assert_eq!(listed(&place.join("refs")), ["main"]);
    let commit = std::fs::read_to_string(place.join("refs/main")).unwrap();
    assert_eq!(commit, COMMIT);
    let link = std::fs::read_link(path.join("config.json")).unwrap();
    assert!(link.starts_with("../../blobs"), "{}", link.display());
    let size = WEIGHTS.len() as u64;
    assert_eq!(seen.last(), Some(&("model.safetensors".to_owned(), size, size)));
    let requests = server.requests();
    for request in &requests {
        assert!(request.contains("dari/"), "{request}");
        assert!(request.contains("Bearer sesame"), "{request}");
        assert!(!request.contains("pytorch_model"), "{request}");
    }

    // Again: one question, no file.
    assert_eq!(fetch(&options).unwrap(), path);
    assert_eq!(server.requests().len(), 1);
    // By the commit: none.
    let by_commit = format!("owner/name@{COMMIT}");
    assert_eq!(hub::fetch(&by_commit, &options, &mut |_| {}).unwrap(), path);
    // Offline: none.
    let offline = Options { offline: true, ..options.clone() };
    assert_eq!(fetch(&offline).unwrap(), path);
    assert!(server.requests().is_empty());
    // No network.
    let unreachable = Options { endpoint: closed_port(), ..options.clone() };
    assert_eq!(fetch(&unreachable).unwrap(), path);

    let cached = hub::cached_in(cache.path());
    assert_eq!(cached.len(), 1);
    assert_eq!((cached[0].id.as_str(), &cached[0].path), ("owner/name", &path));
    assert_eq!(cached[0].bytes, size + 5);

    // A file lost from the cache: not complete offline, fetched again online.
    std::fs::remove_file(path.join("model.safetensors")).unwrap();
    assert!(problem(fetch(&offline)).contains("HF_HUB_OFFLINE is set"));
    assert!(problem(fetch(&unreachable)).contains("no complete snapshot"));
    assert!(hub::cached_in(cache.path()).is_empty());
    assert_eq!(fetch(&options).unwrap(), path);
    assert_eq!(hub::cached_in(cache.path()).len(), 1);
}

#[test]
fn shards_and_leftovers() {
    let cache = tempfile::tempdir().unwrap();
    let index = r#"{"weight_map": {"b": "1.safetensors", "f": "1.safetensors"}}"#;
    let files = vec![
        ("1.safetensors", WEIGHTS.to_vec()),
        ("2.safetensors", b"unnamed".to_vec()),
        ("config.json", b"{}".to_vec()),
        ("model.safetensors.index.json", index.into()),
    ];
    let server = Server::start(files, Manner::Honest);
    let options = options(cache.path(), &server.endpoint);
    // Left by a run that ended between the last byte and the renaming; and half a file.
    let blobs = cache.path().join("models--owner--name/blobs");
    std::fs::create_dir_all(&blobs).unwrap();
    std::fs::write(blobs.join("e7a92.part"), "{}").unwrap();
    std::fs::write(blobs.join("e7a90.part"), &WEIGHTS[..100]).unwrap();
    let path = fetch(&options).unwrap();
    assert_eq!(std::fs::read(path.join("1.safetensors")).unwrap(), WEIGHTS);
    assert!(!path.join("2.safetensors").exists());
    assert_eq!(Folder::open(&path).unwrap().weights().unwrap().len(), 3);
    assert_eq!(hub::cached_in(cache.path()).len(), 1);
}

#[test]
fn a_hub_that_misbehaves() {
    for (manner, said) in [(Manner::Breaks, "no complete snapshot"), (Manner::Deceives, "unusable etag `../")]
    {
        let cache = tempfile::tempdir().unwrap();
        let server = Server::start(model(), manner);
        let text = problem(fetch(&options(cache.path(), &server.endpoint)));
        assert!(text.contains(said), "{text}");
        assert!(hub::cached_in(cache.path()).is_empty());
        // Nothing outside of the model's place.
        let outside = std::fs::read_dir(cache.path()).unwrap().flatten();
        assert!(outside.count() <= 1);
    }
}

#[test]
fn refusals() {
    let cache = tempfile::tempdir().unwrap();
    let server = Server::start(vec![("config.json", b"{}".to_vec())], Manner::Honest);
    let options = options(cache.path(), &server.endpoint);
    let ask = |id: &str, options: &Options| problem(hub::fetch(id, options, &mut |_| {}));
    let text = ask("gated/name", &options);
    assert!(text.contains("refuses it with the token"), "{text}");
    assert!(text.contains("set HF_TOKEN"), "{text}");
    let text = ask("owner/nowhere", &options);
    assert!(text.contains("has no such model") && text.contains("owner/nowhere@main"));
    let text = ask("owner/name@v2", &options);
    assert!(text.contains("has no such model, revision"), "{text}");
    assert!(ask("broken/name", &options).contains("503"));
    let text = ask("owner/name", &options);
    assert!(text.contains("has no weights; looked for model.safetensors"));
    server.requests();
    for id in ["", "name", "../name", "owner/..", "owner/name@../x"] {
        assert!(ask(id, &options).contains("owner/name or owner/name@revision"));
    }
    let offline = Options { offline: true, ..options };
    let text = ask("owner/name", &offline);
    assert!(text.contains("HF_HUB_OFFLINE is set; unset it"), "{text}");
    assert!(server.requests().is_empty());
}

#[test]
fn https_is_spoken() {
    let cache = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("https://{}", listener.local_addr().unwrap());
    let greeting = std::thread::spawn(move || {
        let mut start = [0; 3];
        let (mut stream, _) = listener.accept().unwrap();
        stream.read_exact(&mut start).unwrap();
        start
    });
    let text = problem(fetch(&options(cache.path(), &endpoint)));
    assert!(text.contains("gives: request error: "), "{text}");
    // A handshake record of TLS (RFC 8446, 5.1).
    assert_eq!(greeting.join().unwrap()[..2], [0x16, 0x03]);
}

#[test]
fn a_cache_full_of_odd_things() {
    let cache = tempfile::tempdir().unwrap();
    let make = |path: &str, bytes: &[u8]| {
        let path = cache.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    };
    let snapshot = |model: &str| format!("{model}/snapshots/{COMMIT}");
    let whole = |model: &str| {
        make(&format!("{}/config.json", snapshot(model)), b"{}");
        make(&format!("{}/model.safetensors", snapshot(model)), WEIGHTS);
    };
    make("version.txt", b"1");
    make("datasets--a--b/x", b"");
    make("models--justone/x", b"");
    make(&format!("{}/config.json", snapshot("models--no--weights")), b"{}");
    whole("models--z--last");
    whole("models--a--no-ref");
    whole("models--..--x");
    whole("models--b--bad-ref");
    make("models--z--last/refs/main", COMMIT.as_bytes());
    make("models--b--bad-ref/refs/main", b"../../..");
    let ids: Vec<String> = hub::cached_in(cache.path()).into_iter().map(|model| model.id).collect();
    assert_eq!(ids, ["a/no-ref", "b/bad-ref", "z/last"]);
    assert!(hub::cached_in(&cache.path().join("none")).is_empty());
    // A reference that is no commit is none.
    let offline = Options { offline: true, ..options(cache.path(), "http://127.0.0.1:9") };
    assert!(hub::fetch("b/bad-ref", &offline, &mut |_| {}).is_err());
    assert!(hub::fetch("z/last", &offline, &mut |_| {}).is_ok());
}
