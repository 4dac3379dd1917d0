//! Chat templates: Jinja, run exactly as the checkpoint writes it.
//!
//! What transformers gives a template is there: `trim_blocks` and `lstrip_blocks`, loop controls,
//! `raise_exception`, `strftime_now`, `tojson` as Python writes it, the methods of Python's strings, lists
//! and dictionaries, `{% generation %}` (which here only renders its body), special tokens by role. A template
//! is a stranger's program: it runs with a limit on its steps and on its depth.

use std::fmt::Write as _;

use chrono::format::{Item, StrftimeItems};
use dari_files::Folder;
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Serde, Value};
use minijinja::{Environment, Error as JinjaError, ErrorKind};
use serde::Deserialize;
use serde_json::{Value as Json, json};

use super::error::Error;

/// Steps that a template may take: some ten thousand messages' worth.
const FUEL: u64 = 1_000_000;
/// Bytes of stack that it may use: as many lists within lists as those steps can build are written one within
/// the other. Only what is used is ever paid for.
const STACK: usize = 512 << 20;
/// The largest template.
const LARGEST: usize = 4 << 20;

/// Files that hold the usual template; others of a folder of them are for tools and documents.
const FILES: [&str; 3] =
    ["chat_template.jinja", "chat_templates/default.jinja", "additional_chat_templates/default.jinja"];

/// A checkpoint's chat template.
#[derive(Clone, Debug)]
pub struct ChatTemplate {
    origin: String,
    source: String,
    special: Vec<(&'static str, String)>,
}

impl ChatTemplate {
    /// The template of a model folder, by whichever file has it; `special` are special tokens by role.
    ///
    /// # Errors
    /// A file that is damaged, or a template that is no Jinja.
    pub fn from_folder(folder: &Folder, special: &[(&'static str, String)]) -> Result<Option<Self>, Error> {
        let place = |file: &str| format!("{}/{file}", folder.label());
        for file in FILES {
            let Some(bytes) = folder.read(file)? else { continue };
            let text = String::from_utf8_lossy(&bytes).into_owned();
            return Ok(Some(ChatTemplate::new(place(file), text, special)?));
        }
        for file in ["chat_template.json", "processor_config.json", "tokenizer_config.json"] {
            let Some(config) = folder.json(file)? else { continue };
            let source = match config.get("chat_template") {
                Some(Json::String(source)) => Some(source.clone()),
                // Several by name: the one called default.
                Some(Json::Array(all)) => {
                    let named = all.iter().find(|entry| entry["name"] == "default").or_else(|| all.first());
                    named.and_then(|entry| entry["template"].as_str()).map(str::to_owned)
                }
                _ => None,
            };
            if let Some(source) = source {
                return Ok(Some(ChatTemplate::new(place(file), source, special)?));
            }
        }
        Ok(None)
    }

    /// A template from its text; `origin` is what errors call it.
    ///
    /// # Errors
    /// A text that is no Jinja.
    pub fn new(origin: String, source: String, special: &[(&'static str, String)]) -> Result<Self, Error> {
        if source.len() > LARGEST {
            let problem = format!("a template of {} bytes; expected at most {LARGEST}", source.len());
            return Err(Error::Template { origin, problem });
        }
        let template = ChatTemplate { origin, source: plain(&source), special: special.to_vec() };
        if let Some(name) = loose_namespace(&template.source) {
            let problem = format!(
                "`{name}` is used as a value; a namespace may only be made and have its fields set and read"
            );
            return Err(Error::Template { origin: template.origin, problem });
        }
        template.environment().map(|_| ())?;
        Ok(template)
    }

    /// A chat as the model reads it; with `answer` up to where its answer begins.
    ///
    /// # Errors
    /// What the template refuses, calls and does not find, or a template that does not come to its end.
    pub fn render(&self, messages: &Json, answer: bool) -> Result<String, Error> {
        let mut context = json!({"messages": messages, "add_generation_prompt": answer});
        for (role, token) in &self.special {
            context[*role] = Json::from(token.as_str());
        }
        let run = || {
            let environment = self.environment()?;
            let template = environment.get_template(NAME).map_err(|error| self.failed(&error))?;
            template.render(Value::from(Serde(&context))).map_err(|error| self.failed(&error))
        };
        let problem =
            |problem: &str| Error::Template { origin: self.origin.clone(), problem: problem.to_owned() };
        std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().stack_size(STACK).spawn_scoped(scope, run);
            let thread = thread.map_err(|_| problem("no thread could be started for it"))?;
            thread.join().map_err(|_| problem("it could not be run"))?
        })
    }

    fn environment(&self) -> Result<Environment<'_>, Error> {
        let mut environment = Environment::new();
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        environment.set_syntax(syntax.map_err(|error| self.failed(&error))?);
        environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
        environment.set_fuel(Some(FUEL));
        environment.set_recursion_limit(100);
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_function("raise_exception", |problem: String| -> Result<Value, JinjaError> {
            Err(JinjaError::new(ErrorKind::InvalidOperation, problem))
        });
        environment.add_function("strftime_now", now);
        environment.add_filter("tojson", to_json);
        environment.add_template(NAME, &self.source).map_err(|error| self.failed(&error))?;
        Ok(environment)
    }

    fn failed(&self, error: &JinjaError) -> Error {
        let mut problem = match error.kind() {
            ErrorKind::OutOfFuel => "it does not come to an end".to_owned(),
            _ => error.detail().map_or_else(|| error.kind().to_string(), str::to_owned),
        };
        if let Some(line) = error.line() {
            let _ = write!(problem, " (line {line} of the chat template)");
        }
        Error::Template { origin: self.origin.clone(), problem }
    }
}

const NAME: &str = "chat template";

/// `{% generation %}` marks an answer for training; as a condition that holds it renders its body.
fn plain(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(start) = rest.find("{%") {
        // Behind the opening: `{%}` is no tag.
        let Some(length) = rest[start + 2..].find("%}").map(|at| at + 2) else { break };
        let (before, tag) = (&rest[..start], &rest[start..start + length + 2]);
        out.push_str(before);
        let inner = tag[2..tag.len() - 2].trim_matches(['-', '+']).trim();
        match inner {
            "generation" => out.push_str(&tag.replace("generation", "if true")),
            "endgeneration" => out.push_str(&tag.replace("endgeneration", "endif")),
            _ => out.push_str(tag),
        }
        rest = &rest[start + length + 2..];
    }
    out.push_str(rest);
    out
}

/// The name of a namespace that stands anywhere as a value. Such a one could hold itself, and would be written
/// without an end; chat templates set and read fields, no more.
fn loose_namespace(source: &str) -> Option<String> {
    let tokens = tokens(source);
    let at = |index: usize| tokens.get(index).map_or("", String::as_str);
    let mut names = Vec::new();
    for index in 0..tokens.len() {
        if at(index) == "namespace" && !(index > 0 && at(index - 1) == ".") {
            let made = index >= 3 && at(index - 1) == "=" && at(index - 3) == "set" && at(index + 1) == "(";
            if !made {
                return Some("namespace".into());
            }
            names.push(at(index - 2).to_owned());
        }
    }
    (0..tokens.len()).find_map(|index| {
        let name = at(index);
        let is_field = index > 0 && at(index - 1) == ".";
        let is_made = index > 0 && at(index - 1) == "set" && at(index + 1) == "=";
        let is_read = at(index + 1) == ".";
        // `namespace(found=false)`: a field's own name.
        let is_named = at(index + 1) == "=" && at(index + 2) != "=";
        let is_loose =
            names.iter().any(|known| known == name) && !is_field && !is_made && !is_read && !is_named;
        is_loose.then(|| name.to_owned())
    })
}

/// The words and signs of a template's code, what stands in quotes as one.
fn tokens(source: &str) -> Vec<String> {
    let (mut tokens, mut rest) = (Vec::new(), source);
    while let Some(start) = rest.find("{%").into_iter().chain(rest.find("{{")).min() {
        let end = if rest[start..].starts_with("{%") { "%}" } else { "}}" };
        rest = &rest[start + 2..];
        while let Some(first) = rest.chars().next() {
            if rest.starts_with(end) {
                break;
            }
            let length = if first == '\'' || first == '"' {
                let mut escaped = false;
                let closing = rest[1..].char_indices().find(|(_, c)| {
                    let closes = *c == first && !escaped;
                    escaped = *c == '\\' && !escaped;
                    closes
                });
                closing.map_or(rest.len(), |(at, _)| at + 2)
            } else if first.is_alphanumeric() || first == '_' {
                rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len())
            } else {
                first.len_utf8()
            };
            if !first.is_whitespace() {
                tokens.push(rest[..length].to_owned());
            }
            rest = &rest[length..];
        }
    }
    tokens
}

/// Today, as `strftime` writes it.
fn now(format: &str) -> Result<String, JinjaError> {
    let items: Vec<Item> = StrftimeItems::new(format).collect();
    if items.contains(&Item::Error) {
        let problem = format!("strftime_now cannot write {format:?}");
        return Err(JinjaError::new(ErrorKind::InvalidOperation, problem));
    }
    Ok(chrono::Local::now().format_with_items(items.into_iter()).to_string())
}

/// Python's `json.dumps(…, ensure_ascii=False)`.
fn to_json(value: Value, options: Kwargs) -> Result<String, JinjaError> {
    let indent: Option<usize> = options.get("indent")?;
    // What else transformers lets templates say changes nothing here.
    let _: Option<bool> = options.get("ensure_ascii")?;
    let _: Option<bool> = options.get("sort_keys")?;
    options.assert_all_used()?;
    let mut out = String::new();
    write_json(&Json::deserialize(value)?, indent, 0, &mut out);
    Ok(out)
}

fn write_json(value: &Json, indent: Option<usize>, depth: usize, out: &mut String) {
    let line = |depth: usize, out: &mut String| {
        if let Some(indent) = indent {
            out.push('\n');
            out.extend(std::iter::repeat_n(' ', indent.min(16) * depth));
        }
    };
    let between = if indent.is_some() { "," } else { ", " };
    match value {
        Json::Array(list) if !list.is_empty() => {
            out.push('[');
            for (index, entry) in list.iter().enumerate() {
                if index > 0 {
                    out.push_str(between);
                }
                line(depth + 1, out);
                write_json(entry, indent, depth + 1, out);
            }
            line(depth, out);
            out.push(']');
        }
        Json::Object(entries) if !entries.is_empty() => {
            out.push('{');
            for (index, (key, entry)) in entries.iter().enumerate() {
                if index > 0 {
                    out.push_str(between);
                }
                line(depth + 1, out);
                let _ = write!(out, "{}: ", Json::from(key.as_str()));
                write_json(entry, indent, depth + 1, out);
            }
            line(depth, out);
            out.push('}');
        }
        other => {
            let _ = write!(out, "{other}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn render(source: &str, messages: &Json) -> Result<String, Error> {
        ChatTemplate::new("t".into(), source.into(), &[("bos_token", "<s>".into())])?.render(messages, true)
    }

    #[test]
    fn what_transformers_gives_templates_is_there() {
        let messages =
            json!([{"role": "user", "content": " Hi "}, {"role": "tool", "content": {"a": [1, "é<"]}}]);
        for (source, expected) in [
            ("{{ bos_token }}{{ messages[0].content.strip().upper() }}", "<s>HI"),
            (
                "{% for m in messages %}\n  {% if loop.first %}\n{{ m.role }};\n  {% endif %}\n{% endfor %}",
                "user;\n",
            ),
            ("{{ messages[1].content | tojson }}", "{\"a\": [1, \"é<\"]}"),
            ("{{ messages[1].content | tojson(indent=2) }}", "{\n  \"a\": [\n    1,\n    \"é<\"\n  ]\n}"),
            ("{%- generation -%} x {%- endgeneration %}", "x"),
            (
                "{% for m in messages %}{% if m.role == 'tool' %}{% break %}{% endif %}{{ m.role }}{% endfor %}",
                "user",
            ),
            (
                "{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{% endfor %}{{ ns.n }}",
                "2",
            ),
            ("{{ messages | selectattr('role', 'equalto', 'tool') | list | length }}", "1"),
            ("{% if add_generation_prompt %}{{ 'go' ~ 1 }}{% endif %}", "go1"),
            ("{{ strftime_now('%Y') | length }}", "4"),
        ] {
            assert_eq!(render(source, &messages).expect(source), expected, "{source}");
        }
    }

    #[test]
    fn lists_within_lists_are_written_to_the_last() {
        let deep = "{% set ns = namespace(x=0) %}{% for i in range(90000) %}{% set ns.x = [ns.x] %}{% endfor %}{{ ns.x }}";
        let text = render(deep, &json!([])).expect("a list");
        assert_eq!(text.len(), 180_001);
    }

    #[test]
    fn a_hostile_template_is_one_line_of_error() {
        let messages = json!([]);
        for (source, expected) in [
            (
                "{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}",
                "does not come to an end",
            ),
            (
                "{% set ns = namespace(x=0) %}{% for i in range(99999) %}{% for j in range(99) %}{% set ns.x = [ns.x] %}{% endfor %}{% endfor %}{{ ns.x }}",
                "does not come to an end",
            ),
            ("{{ raise_exception('roles must alternate') }}", "roles must alternate"),
            ("{{ nothing_there() }}", "nothing_there"),
            ("{% set ns = namespace(n=0) %}{% set ns.n = ns %}{{ ns }}", "`ns` is used as a value"),
            ("{% set ns = namespace() %}{% set ns.n = [ns] %}{{ ns.n ~ 'x' }}", "`ns` is used as a value"),
            ("{% set a = [namespace()] %}{% set a[0].n = a %}{{ a }}", "`namespace` is used as a value"),
            ("{% for", ""),
            ("{{ strftime_now('%!') }}", "strftime_now cannot write"),
            ("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", ""),
            ("{{ 1 // 0 }}", ""),
        ] {
            let text = render(source, &messages).expect_err(source).to_string();
            assert!(text.contains(expected) && !text.contains('\n'), "{source}: {text}");
        }
    }
}
