//! WebDataset: shards of tar files whose members share a name up to the first dot, as `000.jpg`,
//! `000.txt` and `000.json` do. Shards are indexed by their headers once, members are read when
//! asked for.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use super::captions::{TEXT_LIMIT, add_lines, decode, from_json, language};
use super::error::Error;
use super::pairs::{Pair, Pairs, check_usable};
use super::tar::{Damage, Member, list};
use crate::image::{self, Limits};

const PICTURES: [&str; 4] = ["jpg", "jpeg", "png", "webp"];

/// The most shards that a pattern may name.
const SHARDS: usize = 100_000;

#[derive(Default)]
struct Sample {
    key: String,
    picture: Option<Member>,
    texts: Vec<(Option<String>, Member)>,
    json: Option<Member>,
    /// Two members of one name.
    twice: Option<String>,
}

enum Record {
    Sample(Sample),
    Damage(Damage),
}

struct Entry {
    shard: usize,
    record: Record,
}

pub(super) struct WebDataset {
    path: PathBuf,
    shards: Vec<PathBuf>,
    entries: Vec<Entry>,
    incomplete: usize,
    limits: Limits,
}

impl WebDataset {
    /// Indexes the shards in the order given; `path` is what the user named.
    pub fn open(path: &Path, shards: Vec<PathBuf>, limits: &Limits) -> Result<WebDataset, Error> {
        let mut entries = Vec::new();
        let mut incomplete = 0;
        for (shard, file) in shards.iter().enumerate() {
            let opened = File::open(file).map_err(Error::io(file))?;
            let length = opened.metadata().map_err(Error::io(file))?.len();
            let (members, damage) =
                list(&mut BufReader::with_capacity(1024, opened), length).map_err(Error::io(file))?;
            for sample in group(members) {
                let has_caption = !sample.texts.is_empty() || sample.json.is_some();
                if sample.twice.is_some() || (sample.picture.is_some() && has_caption) {
                    entries.push(Entry { shard, record: Record::Sample(sample) });
                } else {
                    incomplete += 1;
                }
            }
            entries.extend(damage.map(|damage| Entry { shard, record: Record::Damage(damage) }));
        }
        let sought = format!(
            "{} shards with no picture beside a caption; expected members such as 000.jpg and 000.txt",
            shards.len()
        );
        let limits = limits.clone();
        let dataset = WebDataset { path: path.to_owned(), shards, entries, incomplete, limits };
        check_usable(dataset, path, &sought)
    }

    fn read(&self, shard: &Path, member: &Member, limit: u64) -> Result<Vec<u8>, Error> {
        if member.size > limit {
            let problem = format!("{} bytes; at most {limit} are read", member.size);
            return Err(Error::record(shard, &member.name, problem));
        }
        let mut file = File::open(shard).map_err(Error::io(shard))?;
        file.seek(SeekFrom::Start(member.start)).map_err(Error::io(shard))?;
        let mut bytes = Vec::new();
        file.take(member.size).read_to_end(&mut bytes).map_err(Error::io(shard))?;
        if bytes.len() as u64 != member.size {
            let problem = "the shard was cut while it was read; open it again";
            return Err(Error::record(shard, &member.name, problem));
        }
        Ok(bytes)
    }

    fn get_sample(&self, shard: &Path, sample: &Sample) -> Result<Pair, Error> {
        let refuse = |name: &str, problem: String| Error::record(shard, name, problem);
        if let Some(name) = &sample.twice {
            return Err(refuse(name, "two members for one thing; expected each name once".into()));
        }
        let mut captions = Vec::new();
        for (language, member) in &sample.texts {
            let bytes = self.read(shard, member, TEXT_LIMIT)?;
            let text = decode(&bytes).map_err(|problem| refuse(&member.name, problem))?;
            add_lines(&mut captions, text, language.as_deref());
        }
        // The text is the caption; a JSON member often repeats it among much else.
        if let (true, Some(member)) = (sample.texts.is_empty(), &sample.json) {
            let bytes = self.read(shard, member, TEXT_LIMIT)?;
            captions = decode(&bytes)
                .and_then(|text| serde_json::from_str(text).map_err(|error| format!("not JSON: {error}")))
                .and_then(|record| from_json(&record))
                .map_err(|problem| refuse(&member.name, problem))?;
        }
        if captions.is_empty() {
            let name = sample.texts.first().map_or(&sample.key, |(_, member)| &member.name);
            return Err(refuse(name, "empty caption; expected words".into()));
        }
        let Some(member) = &sample.picture else {
            return Err(refuse(&sample.key, "no picture".into()));
        };
        let bytes = self.read(shard, member, self.limits.max_file_bytes)?;
        let name = format!("{}, {}", shard.display(), member.name);
        let picture = image::decode(&name, &bytes, &self.limits).map_err(|source| Error::Picture {
            file: shard.to_owned(),
            record: member.name.clone(),
            source: Box::new(source),
        })?;
        Ok(Pair { key: sample.key.clone(), picture, captions })
    }
}

impl Pairs for WebDataset {
    fn len(&self) -> usize {
        self.entries.len()
    }

    fn get(&self, index: usize) -> Result<Pair, Error> {
        let length = self.entries.len();
        let entry = self.entries.get(index).ok_or(Error::Index { index, length })?;
        let shard = self.shards.get(entry.shard).map_or(self.path.as_path(), PathBuf::as_path);
        match &entry.record {
            Record::Sample(sample) => self.get_sample(shard, sample),
            Record::Damage(damage) => {
                let name = damage.name.clone().unwrap_or_else(|| format!("byte {}", damage.at));
                let problem = format!("{}; what follows in the shard is not read", damage.problem);
                Err(Error::record(shard, name, problem))
            }
        }
    }

    fn describe(&self) -> String {
        let alone = match self.incomplete {
            0 => String::new(),
            count => format!(", {count} more without a picture or a caption"),
        };
        let (path, shards) = (self.path.display(), self.shards.len());
        format!("WebDataset {path}: {} pairs in {shards} shards{alone}", self.entries.len())
    }
}

/// Samples in the order of their first members.
fn group(members: Vec<Member>) -> Vec<Sample> {
    let mut samples: Vec<Sample> = Vec::new();
    let mut places: HashMap<String, usize> = HashMap::new();
    for member in members {
        let file = member.name.rfind('/').map_or(0, |at| at + 1);
        let Some(dot) = member.name.get(file..).and_then(|name| name.find('.')) else {
            continue;
        };
        let Some((key, extension)) = member.name.split_at_checked(file + dot) else {
            continue;
        };
        // "._000.jpg" and the like are left by file managers and have no name before the dot.
        if dot == 0 {
            continue;
        }
        let extension = extension.trim_start_matches('.').to_ascii_lowercase();
        let kind = match extension.as_str() {
            "txt" => Kind::Text(None),
            "json" => Kind::Json,
            other if PICTURES.contains(&other) => Kind::Picture,
            other => match other.strip_suffix(".txt").and_then(language) {
                Some(code) => Kind::Text(Some(code)),
                None => continue,
            },
        };
        let place = *places.entry(key.to_owned()).or_insert_with(|| {
            samples.push(Sample { key: key.to_owned(), ..Sample::default() });
            samples.len() - 1
        });
        let Some(sample) = samples.get_mut(place) else {
            continue;
        };
        sample.add(kind, member);
    }
    samples
}

enum Kind {
    Picture,
    Text(Option<String>),
    Json,
}

impl Sample {
    fn add(&mut self, kind: Kind, member: Member) {
        let taken = match &kind {
            Kind::Picture => self.picture.is_some(),
            Kind::Json => self.json.is_some(),
            Kind::Text(language) => self.texts.iter().any(|(other, _)| other == language),
        };
        if taken {
            self.twice = Some(member.name);
            return;
        }
        match kind {
            Kind::Picture => self.picture = Some(member),
            Kind::Json => self.json = Some(member),
            Kind::Text(language) => self.texts.push((language, member)),
        }
    }
}

/// The files of a pattern with ranges in braces, `shards-{000..012}.tar`; nothing if it has none.
pub(super) fn expand(pattern: &str) -> Result<Option<Vec<String>>, String> {
    let Some((before, rest)) = pattern.split_once('{') else {
        return Ok(None);
    };
    let Some((range, after)) = rest.split_once('}') else {
        return Ok(None);
    };
    let Some((first, last)) = range.split_once("..") else {
        return Ok(None);
    };
    let number = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse::<usize>().ok().filter(|_| digits)
    };
    let (Some(start), Some(end)) = (number(first), number(last)) else {
        return Err(format!("range {{{range}}}; expected numbers as in {{000..012}}"));
    };
    if end < start || end - start >= SHARDS {
        return Err(format!("range {{{range}}}; expected a rising one of at most {SHARDS} numbers"));
    }
    let tails = match expand(after)? {
        Some(tails) => tails,
        None => vec![after.to_owned()],
    };
    if (end - start + 1).saturating_mul(tails.len()) > SHARDS {
        return Err(format!("more than {SHARDS} shards; give them in parts"));
    }
    let width = first.len();
    let names = (start..=end)
        .flat_map(|n| tails.iter().map(move |tail| format!("{before}{n:0width$}{tail}")))
        .collect();
    Ok(Some(names))
}

#[cfg(test)]
mod tests {
    use super::expand;

    #[test]
    fn patterns() {
        let names = |pattern: &str| expand(pattern).unwrap().unwrap();
        assert_eq!(names("s-{08..10}.tar"), ["s-08.tar", "s-09.tar", "s-10.tar"]);
        assert_eq!(names("{0..1}/{1..2}"), ["0/1", "0/2", "1/1", "1/2"]);
        assert_eq!(names("{7..7}"), ["7"]);
        for plain in ["a.tar", "a{.tar", "a{1,2}.tar", "a}..{"] {
            assert_eq!(expand(plain).unwrap(), None, "{plain}");
        }
        for wrong in [
            "{2..1}",
            "{a..b}",
            "{..}",
            "{-1..2}",
            "{0..99999999999999999999999}",
            "{0..100000}",
            "{0..999}{0..999}",
        ] {
            assert!(expand(wrong).is_err(), "{wrong}");
        }
    }
}
