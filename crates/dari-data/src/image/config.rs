//! Reading an image processor's JSON field by field, so that no field is ignored unseen.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::Error;

/// The longest side a processor may ask for, in pixels.
pub(super) const MAX_SIDE: u64 = 4096;

/// A JSON object, and which of its fields have been read.
pub(super) struct Fields<'a> {
    object: &'a Map<String, Value>,
    seen: BTreeSet<&'static str>,
}

impl<'a> Fields<'a> {
    pub(super) fn of(field: &str, value: &'a Value) -> Result<Fields<'a>, Error> {
        match value.as_object() {
            Some(object) => Ok(Fields { object, seen: BTreeSet::new() }),
            None => Err(wrong(field, value, "an object")),
        }
    }

    /// The field's value; `None` when absent or null.
    pub(super) fn get(&mut self, field: &'static str) -> Option<&'a Value> {
        self.seen.insert(field);
        self.object.get(field).filter(|value| !value.is_null())
    }

    pub(super) fn skip(&mut self, fields: &[&'static str]) {
        self.seen.extend(fields);
    }

    pub(super) fn flag(&mut self, field: &'static str) -> Result<Option<bool>, Error> {
        self.get(field)
            .map(|value| value.as_bool().ok_or_else(|| wrong(field, value, "true or false")))
            .transpose()
    }

    pub(super) fn text(&mut self, field: &'static str) -> Result<Option<&'a str>, Error> {
        self.get(field).map(|value| value.as_str().ok_or_else(|| wrong(field, value, "a string"))).transpose()
    }

    /// A finite number above 0.
    pub(super) fn positive(&mut self, field: &'static str) -> Result<Option<f64>, Error> {
        self.get(field)
            .map(|value| match value.as_f64() {
                Some(number) if number.is_finite() && number > 0.0 => Ok(number),
                _ => Err(wrong(field, value, "a number above 0")),
            })
            .transpose()
    }

    /// One finite number for all channels, or three.
    pub(super) fn channels(&mut self, field: &'static str) -> Result<Option<[f64; 3]>, Error> {
        let Some(value) = self.get(field) else {
            return Ok(None);
        };
        let expected = "one number, or three, one for each of red, green and blue";
        let numbers: Option<Vec<f64>> = match value {
            Value::Array(list) => list.iter().map(Value::as_f64).collect(),
            number => number.as_f64().map(|number| vec![number; 3]),
        };
        match numbers.as_deref() {
            Some(&[red, green, blue]) if [red, green, blue].iter().all(|&n| (n as f32).is_finite()) => {
                Ok(Some([red, green, blue]))
            }
            _ => Err(wrong(field, value, expected)),
        }
    }

    /// Three numbers that can be divided by.
    pub(super) fn divisors(&mut self, field: &'static str) -> Result<Option<[f64; 3]>, Error> {
        let numbers = self.channels(field)?;
        match numbers {
            Some(list) if list.iter().any(|&n| n as f32 == 0.0) => Err(wrong(
                field,
                self.object.get(field).unwrap_or(&Value::Null),
                "numbers other than 0, as pixels are divided by them",
            )),
            _ => Ok(numbers),
        }
    }

    /// Refuses what has not been read, unless it is null or false and so asks for nothing.
    pub(super) fn finish(self, known: &str) -> Result<(), Error> {
        for (field, value) in self.object {
            let inert = value.is_null() || value == &Value::Bool(false);
            if !inert && !self.seen.contains(field.as_str()) {
                return Err(wrong(
                    field,
                    value,
                    &format!("no such field: it may change the pixels, and {known} are all that is followed"),
                ));
            }
        }
        Ok(())
    }
}

/// A side of 1 to [`MAX_SIDE`] pixels.
pub(super) fn side(field: &str, value: &Value) -> Result<u32, Error> {
    match value.as_u64() {
        Some(side @ 1..=MAX_SIDE) => Ok(side as u32),
        _ => Err(wrong(field, value, &format!("a whole number of pixels from 1 to {MAX_SIDE}"))),
    }
}

/// An error about a field's value, shown in a few characters.
pub(super) fn wrong(field: &str, found: &Value, expected: &str) -> Error {
    let mut text = found.to_string();
    if text.chars().count() > 60 {
        text = text.chars().take(57).collect::<String>() + "...";
    }
    Error::Config { field: field.into(), found: text, expected: expected.into() }
}
