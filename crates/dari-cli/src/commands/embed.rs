//! `dari embed`: pictures and texts to vectors.

use std::io::Write;
use std::path::Path;

use serde_json::{Value, json};

use crate::cli::{Embed, Usage};
use crate::inputs::{self, Need};
use crate::language::say;
use crate::{Outcome, columns, npy, screen};

/// One input's row.
struct Row {
    input: String,
    kind: &'static str,
    vector: Result<Vec<f32>, String>,
}

/// Runs the command.
pub fn run(arguments: &Embed) -> anyhow::Result<Outcome> {
    let mut texts = arguments.texts.clone();
    if let Some(file) = &arguments.texts_file {
        texts.extend(inputs::lines(file)?);
    }
    if arguments.images.is_empty() && texts.is_empty() {
        let problem = match &arguments.texts_file {
            Some(file) => {
                let file = file.display();
                say!("{file}: no text in it", "{file}: 글이 없습니다")
            }
            None => say!(
                "nothing to embed: give --images, --texts or --texts-file",
                "임베딩할 것이 없습니다: --images, --texts, --texts-file 가운데 하나를 주세요"
            ),
        };
        return Err(Usage(problem).into());
    }
    let format = match &arguments.output {
        Some(path) => Format::of(path)?,
        None => Format::JsonLines,
    };
    let inputs::Files { files, failures } = inputs::pictures(&arguments.images)?;
    let engine = inputs::open(&arguments.model)?;
    if !files.is_empty() {
        inputs::require(&engine, Need::Pictures)?;
    }
    if !texts.is_empty() {
        inputs::require(&engine, Need::Texts)?;
    }
    let mut rows = Vec::with_capacity(files.len() + texts.len());
    let bar = screen::bar(files.len() as u64, "pictures");
    // Several batches at once: one is opened while another goes through the model.
    for batch in files.chunks(4 * usize::from(arguments.model.batch)) {
        let vectors = match arguments.no_normalize {
            true => engine.embed_files_as_is(batch),
            false => engine.embed_files(batch),
        };
        for (file, vector) in batch.iter().zip(vectors) {
            let vector = vector.map_err(|error| error.to_string());
            if let Err(message) = &vector {
                bar.suspend(|| screen::error(message));
            }
            rows.push(Row { input: file.display().to_string(), kind: "picture", vector });
        }
        bar.inc(batch.len() as u64);
    }
    bar.finish_and_clear();
    if !texts.is_empty() {
        let bar = screen::bar(texts.len() as u64, "texts");
        for part in texts.chunks(usize::from(arguments.model.batch)) {
            let borrowed: Vec<&str> = part.iter().map(String::as_str).collect();
            let found = match arguments.no_normalize {
                true => engine.embed_texts_as_is(&borrowed)?,
                false => engine.embed_texts_noting(&borrowed)?,
            };
            bar.suspend(|| inputs::warn_of_long_texts(&borrowed, &found.truncated));
            for (text, vector) in part.iter().zip(found.vectors) {
                rows.push(Row { input: text.clone(), kind: "text", vector: Ok(vector) });
            }
            bar.inc(part.len() as u64);
        }
        bar.finish_and_clear();
    }
    let failures = failures + rows.iter().filter(|row| row.vector.is_err()).count();
    match &arguments.output {
        None => write_lines(&mut std::io::stdout().lock(), &rows)?,
        Some(path) => {
            write_file(path, format, &rows, engine.dim())?;
            if arguments.json {
                screen::json(
                    &json!({"output": path.display().to_string(), "rows": rows.len(), "dim": engine.dim(), "failed": failures}),
                )?;
            } else {
                let (path, rows, dim) = (path.display(), rows.len(), engine.dim());
                screen::note(&format!("{path}: [{rows}, {dim}]"));
            }
        }
    }
    Ok(Outcome::of(failures))
}

#[derive(Clone, Copy)]
enum Format {
    Npy,
    JsonLines,
    Parquet,
}

impl Format {
    fn of(path: &Path) -> Result<Format, Usage> {
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("npy") => Ok(Format::Npy),
            Some("jsonl" | "ndjson") => Ok(Format::JsonLines),
            Some("parquet") => Ok(Format::Parquet),
            _ => {
                let path = path.display();
                Err(Usage(say!(
                    "--output is `{path}`: expected a name that ends in .npy, .jsonl or .parquet",
                    "--output이 `{path}`입니다: .npy, .jsonl, .parquet 가운데 하나로 끝나야 합니다"
                )))
            }
        }
    }
}

/// Beside its place first, then renamed: a full disk leaves no half of a file.
fn write_file(path: &Path, format: Format, rows: &[Row], dim: usize) -> Result<(), dari::files::Error> {
    dari::files::write_with(path, |out| match format {
        Format::Npy => write_npy(out, rows, dim),
        Format::JsonLines => write_lines(out, rows),
        Format::Parquet => {
            let rows: Vec<columns::Row<'_>> = rows.iter().map(columns_row).collect();
            columns::write(out, &rows).map_err(std::io::Error::other)
        }
    })
}

fn columns_row(row: &Row) -> columns::Row<'_> {
    let vector = row.vector.as_deref().map_err(String::as_str);
    columns::Row { input: &row.input, kind: row.kind, vector }
}

fn write_npy(out: &mut impl Write, rows: &[Row], dim: usize) -> std::io::Result<()> {
    npy::head(out, &[rows.len(), dim])?;
    let missing = vec![f32::NAN; dim];
    rows.iter().try_for_each(|row| npy::values(out, row.vector.as_ref().unwrap_or(&missing)))
}

fn write_lines(out: &mut impl Write, rows: &[Row]) -> std::io::Result<()> {
    for row in rows {
        let value: Value = match &row.vector {
            Ok(vector) => json!({"input": row.input, "kind": row.kind, "vector": vector}),
            Err(message) => json!({"input": row.input, "kind": row.kind, "error": message}),
        };
        writeln!(out, "{value}")?;
    }
    Ok(())
}
