//! Embeddings as a Parquet file: `input` and `kind`, the `vector` as a list, and an `error` where there
//! is none.

use std::io::Write;
use std::sync::Arc;

use parquet::basic::Compression;
use parquet::data_type::{ByteArray, ByteArrayType, FloatType};
use parquet::errors::Result;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::{SerializedColumnWriter, SerializedFileWriter};
use parquet::schema::parser::parse_message_type;

const SCHEMA: &str = "
message embeddings {
  required binary input (UTF8);
  required binary kind (UTF8);
  optional group vector (LIST) { repeated group list { required float element; } }
  optional binary error (UTF8);
}";
/// Rows that are written together.
const TOGETHER: usize = 8192;

/// One input.
pub struct Row<'a> {
    pub input: &'a str,
    pub kind: &'a str,
    pub vector: std::result::Result<&'a [f32], &'a str>,
}

/// Writes all rows.
pub fn write(out: impl Write + Send, rows: &[Row<'_>]) -> Result<()> {
    let schema = Arc::new(parse_message_type(SCHEMA)?);
    // Numbers from a model are as good as noise: nothing makes them smaller.
    let properties =
        WriterProperties::builder().set_compression(Compression::UNCOMPRESSED).set_dictionary_enabled(false);
    let mut file = SerializedFileWriter::new(out, schema, Arc::new(properties.build()))?;
    for rows in rows.chunks(TOGETHER) {
        let mut group = file.next_row_group()?;
        let mut number = 0;
        while let Some(mut column) = group.next_column()? {
            match number {
                0 => texts(&mut column, rows.iter().map(|row| Some(row.input)))?,
                1 => texts(&mut column, rows.iter().map(|row| Some(row.kind)))?,
                2 => vectors(&mut column, rows)?,
                _ => optional(&mut column, rows.iter().map(|row| row.vector.err()))?,
            }
            column.close()?;
            number += 1;
        }
        group.close()?;
    }
    file.close()?;
    Ok(())
}

fn bytes(text: &str) -> ByteArray {
    ByteArray::from(text.as_bytes().to_vec())
}

fn texts<'a>(
    column: &mut SerializedColumnWriter<'_>,
    texts: impl Iterator<Item = Option<&'a str>>,
) -> Result<()> {
    let values: Vec<ByteArray> = texts.flatten().map(bytes).collect();
    column.typed::<ByteArrayType>().write_batch(&values, None, None)?;
    Ok(())
}

fn optional<'a>(
    column: &mut SerializedColumnWriter<'_>,
    texts: impl Iterator<Item = Option<&'a str>>,
) -> Result<()> {
    let texts: Vec<Option<&str>> = texts.collect();
    let there: Vec<i16> = texts.iter().map(|text| i16::from(text.is_some())).collect();
    let values: Vec<ByteArray> = texts.into_iter().flatten().map(bytes).collect();
    column.typed::<ByteArrayType>().write_batch(&values, Some(&there), None)?;
    Ok(())
}

/// A list a row: 2 stands for a number, 0 for no list; a list's first number begins a new row.
fn vectors(column: &mut SerializedColumnWriter<'_>, rows: &[Row<'_>]) -> Result<()> {
    let (mut values, mut there, mut again) = (Vec::new(), Vec::new(), Vec::new());
    for row in rows {
        match row.vector {
            Ok(vector) if !vector.is_empty() => {
                values.extend_from_slice(vector);
                there.resize(there.len() + vector.len(), 2);
                again.push(0);
                again.resize(again.len() + vector.len() - 1, 1);
            }
            _ => {
                there.push(0);
                again.push(0);
            }
        }
    }
    column.typed::<FloatType>().write_batch(&values, Some(&there), Some(&again))?;
    Ok(())
}
