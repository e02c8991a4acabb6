//! Where the wanted fields lie in a JSON document, found in one strict pass.
//! What the fields mean is not known here.
//!
//! Python's `json.loads` decides what a document is. As `json.loads` does for bytes:
//!
//! - the last of several equal names wins;
//! - `NaN`, `Infinity` and `-Infinity` are numbers;
//! - any surrogate passes, whether it is escaped or stands as three bytes;
//! - a UTF-8 byte order mark at the start is skipped;
//! - control characters in strings are refused, and so are integers of more than 4300 digits.
//!
//! Two things differ: UTF-16 and UTF-32 are refused, and lists and objects may lie in each other at
//! most [`DEPTH_MAX`] deep, while Python's limit depends on its version and its own stack.
//!
//! Example: the paths `origin` and `payload.kind` are wanted, and the document is
//!
//! ```json
//! {"origin": "a", "payload": {"kind": 1, "n": [2]}, "origin": 17}
//! ```
//!
//! Then `origin` is the integer `17`, `payload.kind` is the integer `1`, and `payload` is an
//! object. `n` is read, because the document must be well-formed, but nobody wants it.

use crate::count::json_text::{
    after, after_space, byte, digits_end, hex4, is_ascii, is_utf8_with_surrogates, plain_end,
    space, unescape,
};
use std::ops::Range;

/// How deep lists and objects may lie in each other. This is close to what CPython up to 3.11
/// reads, whose recursion limit is 1000.
pub const DEPTH_MAX: usize = 1000;

/// The longest integer, in digits: CPython's `sys.int_info.default_max_str_digits`.
const INTEGER_DIGITS_MAX: usize = 4300;

/// Finds fields by their paths. It is made once and used for every document. A pass over a document
/// allocates nothing, unless a buffer has to grow.
pub struct Fields {
    /// The paths as a tree, each node before its children. The first node is the document.
    nodes: Vec<Node>,
    /// What the last document has at each node.
    values: Vec<FieldValue>,
    /// A buffer for a name with its escapes decoded.
    name: Vec<u8>,
    /// Whether the last document was UTF-8 without surrogates.
    utf8: bool,
}

/// One step of a path. Its children begin right after it, and each child's `end` is where the next
/// child begins.
///
/// Example: the paths `origin`, `payload.kind` and `payload.n` make the nodes 0 (the document, end
/// 5), 1 (`origin`, end 2), 2 (`payload`, end 5), 3 (`kind`, end 4) and 4 (`n`, end 5).
struct Node {
    name: Box<[u8]>,
    /// The place after the last node below this one.
    end: usize,
}

const MISSING: FieldValue = FieldValue {
    kind: ValueKind::Missing,
    start: 0,
    end: 0,
};

/// Stands for the node of a value that nobody wants.
const UNWANTED: usize = usize::MAX;

/// What kind of value a field has, and where its text lies in the document.
#[derive(Clone, Copy, Debug)]
pub struct FieldValue {
    /// What kind of value it is.
    pub kind: ValueKind,
    /// Where the whole text of a number begins, or what stands between the quotes of a string. It
    /// means nothing for the other kinds.
    start: usize,
    /// The place after that text.
    end: usize,
}

/// The kinds of JSON values, as far as windrow tells them apart.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)] // So that `FieldValue` has no padding and is copied in whole words.
pub enum ValueKind {
    /// The document has no such field.
    Missing,
    /// `null`.
    Null,
    /// `true`.
    True,
    /// `false`.
    False,
    /// A number without a fraction and without an exponent.
    Integer,
    /// A number with a fraction or an exponent.
    Float,
    /// `NaN` or an infinity.
    NotFinite,
    /// A string without escapes.
    String,
    /// A string with escapes in it.
    Escaped,
    /// A list.
    List,
    /// An object.
    Object,
}

/// Why a document is not JSON. `Display` gives the end of a sentence: "the value is not JSON: ...".
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[repr(usize)] // As for `ValueKind`, so that `Result<FieldValue, NotJson>` has no padding.
pub enum NotJson {
    /// Its bytes are not UTF-8, not even with surrogates in it.
    #[error("it is not UTF-8")]
    Encoding,
    /// It ends where a value must begin.
    #[error("it ends too early")]
    End,
    /// After the value there is more than white space.
    #[error("there is more after its end")]
    Trailing,
    /// Lists and objects lie deeper in each other than [`DEPTH_MAX`].
    #[error("it is nested too deeply")]
    Depth,
    /// Something else stands where a value must begin.
    #[error("a value is missing or not valid")]
    Value,
    /// Something else stands where the name of a field must begin.
    #[error("a name in an object is missing or not in double quotes")]
    Name,
    /// Something else stands between a name and its value.
    #[error("there is no colon after a name")]
    Colon,
    /// An object goes on with something else after a value.
    #[error("there is no comma or }} after a value")]
    ObjectEnd,
    /// A list goes on with something else after a value.
    #[error("there is no comma or ] after a value")]
    ListEnd,
    /// The document ends inside a string.
    #[error("a string has no end")]
    StringEnd,
    /// A byte below 0x20 stands in a string.
    #[error("a string has a control character that is not escaped")]
    Control,
    /// A backslash is followed by none of JSON's escapes.
    #[error("a string has an invalid escape")]
    Escape,
    /// Python refuses such an integer too.
    #[error("an integer has more than 4300 digits")]
    LongInteger,
}

impl Fields {
    /// The slot of the document itself. Its value is what the whole text is, an object for example.
    pub const DOCUMENT: usize = 0;

    /// Makes a finder of the fields at these paths. A path is a list of names, from the top level
    /// down.
    #[must_use]
    pub fn new(mut paths: Vec<&[String]>) -> Self {
        paths.sort_unstable();
        let mut nodes = vec![Node {
            name: Box::default(),
            end: 0,
        }];
        add_children(&mut nodes, &paths, 0);
        nodes[0].end = nodes.len();
        Self {
            values: vec![MISSING; nodes.len()],
            nodes,
            name: Vec::new(),
            utf8: false,
        }
    }

    /// The slot of a path, by which its value is asked for after each document.
    ///
    /// # Panics
    /// When the path was not given to [`Fields::new`].
    #[must_use]
    pub fn slot(&self, path: &[String]) -> usize {
        let slot = path.iter().fold(Self::DOCUMENT, |slot, name| {
            child(&self.nodes, slot + 1..self.nodes[slot].end, name.as_bytes())
        });
        assert_ne!(slot, UNWANTED, "the path was given to Fields::new");
        slot
    }

    /// The value that the last document has at a slot.
    #[must_use]
    #[inline]
    pub fn value(&self, slot: usize) -> FieldValue {
        self.values[slot]
    }

    /// The UTF-8 of the string at a slot. If it has escapes, they are decoded into `buffer`. `None`
    /// means that the string has a lone surrogate, so it is not Unicode text. `json` is the
    /// document that was read.
    #[inline]
    pub fn text<'a>(
        &self,
        slot: usize,
        json: &'a [u8],
        buffer: &'a mut Vec<u8>,
    ) -> Option<&'a [u8]> {
        let value = self.values[slot];
        let mut text = value.raw(json);
        if value.kind == ValueKind::Escaped {
            buffer.clear();
            unescape(text, buffer);
            text = buffer;
        }
        let checked = self.utf8 && value.kind == ValueKind::String;
        (checked || std::str::from_utf8(text).is_ok()).then_some(text)
    }

    /// Reads one document to its end.
    ///
    /// # Errors
    /// Why it is not JSON. Then no slot means anything until the next document is read.
    pub fn read(&mut self, json: &[u8]) -> Result<(), NotJson> {
        self.utf8 = is_ascii(json) || std::str::from_utf8(json).is_ok();
        if !self.utf8 && !is_utf8_with_surrogates(json) {
            return Err(NotJson::Encoding);
        }
        let Self {
            nodes,
            values,
            name,
            ..
        } = self;
        values
            .iter_mut()
            .for_each(|value| value.kind = ValueKind::Missing);
        let mut pass = Pass {
            json,
            nodes,
            values,
            name,
        };
        let start = if json.starts_with("\u{feff}".as_bytes()) {
            3
        } else {
            0
        };
        let end = pass.value(space(json, start), Self::DOCUMENT, 0)?;
        if space(json, end) == json.len() {
            Ok(())
        } else {
            Err(NotJson::Trailing)
        }
    }
}

/// One pass over a document. Places are counted in bytes from its start. A method that reads
/// something returns the place after it.
struct Pass<'a> {
    json: &'a [u8],
    nodes: &'a [Node],
    values: &'a mut [FieldValue],
    name: &'a mut Vec<u8>,
}

impl Pass<'_> {
    /// Reads the value at `at`, which belongs to `node` and lies in `depth` lists and objects.
    #[inline(always)]
    fn value(&mut self, at: usize, node: usize, depth: usize) -> Result<usize, NotJson> {
        let json = self.json;
        if byte(json, at) != b'"' {
            return self.other_value(at, node, depth);
        }
        let found = string(json, at + 1)?;
        self.set(node, found);
        Ok(found.end + 1)
    }

    /// Reads a value that is not a string.
    #[inline(never)]
    fn other_value(&mut self, at: usize, node: usize, depth: usize) -> Result<usize, NotJson> {
        let json = self.json;
        let found = match byte(json, at) {
            b'-' | b'0'..=b'9' => number(json, at)?,
            b'{' => FieldValue {
                kind: ValueKind::Object,
                start: at,
                end: at + 1,
            },
            b'[' => FieldValue {
                kind: ValueKind::List,
                start: at,
                end: at + 1,
            },
            _ => literal(json, at)?,
        };
        self.set(node, found);
        match found.kind {
            ValueKind::Object | ValueKind::List if depth == DEPTH_MAX => Err(NotJson::Depth),
            ValueKind::Object => self.object(found.end, node, depth + 1),
            ValueKind::List => self.list(found.end, depth + 1),
            _ => Ok(found.end),
        }
    }

    /// Reads an object whose first name, or whose end, is looked for at `at`.
    #[inline(never)]
    fn object(&mut self, at: usize, node: usize, depth: usize) -> Result<usize, NotJson> {
        let json = self.json;
        let children = self
            .nodes
            .get(node)
            .map_or(0..0, |parent| node + 1..parent.end);
        let mut at = space(json, at);
        if byte(json, at) == b'}' {
            return Ok(at + 1);
        }
        loop {
            if byte(json, at) != b'"' {
                return Err(NotJson::Name);
            }
            let name = string(json, at + 1)?;
            at = after(json, name.end + 1, b':').ok_or(NotJson::Colon)?;
            let child = if children.is_empty() {
                UNWANTED
            } else {
                self.child(children.clone(), name)
            };
            at = self.value(at, child, depth)?;
            match after(json, at, b',') {
                Some(next) => at = next,
                None => return after_space(json, at, b'}').ok_or(NotJson::ObjectEnd),
            }
        }
    }

    /// Reads a list whose first value, or whose end, is looked for at `at`. Nobody wants what is in
    /// it.
    fn list(&mut self, at: usize, depth: usize) -> Result<usize, NotJson> {
        let json = self.json;
        let mut at = space(json, at);
        if byte(json, at) == b']' {
            return Ok(at + 1);
        }
        loop {
            at = self.value(at, UNWANTED, depth)?;
            match after(json, at, b',') {
                Some(next) => at = next,
                None => return after_space(json, at, b']').ok_or(NotJson::ListEnd),
            }
        }
    }

    /// The one of `children` that has this name, or [`UNWANTED`].
    #[inline]
    fn child(&mut self, children: Range<usize>, name: FieldValue) -> usize {
        if name.kind == ValueKind::Escaped {
            self.name.clear();
            unescape(name.raw(self.json), self.name);
            child(self.nodes, children, self.name)
        } else {
            child(self.nodes, children, name.raw(self.json))
        }
    }

    /// Notes the value of a node. It replaces an earlier value of the same name, with everything
    /// that was in that one.
    #[inline]
    fn set(&mut self, node: usize, found: FieldValue) {
        if node == UNWANTED {
            return;
        }
        self.values[node] = found;
        for below in &mut self.values[node + 1..self.nodes[node].end] {
            below.kind = ValueKind::Missing;
        }
    }
}

/// Reads a value that is a word.
#[cold]
fn literal(json: &[u8], start: usize) -> Result<FieldValue, NotJson> {
    for (name, kind) in [
        ("true", ValueKind::True),
        ("false", ValueKind::False),
        ("null", ValueKind::Null),
        ("NaN", ValueKind::NotFinite),
        ("Infinity", ValueKind::NotFinite),
        ("-Infinity", ValueKind::NotFinite),
    ] {
        if json
            .get(start..)
            .is_some_and(|rest| rest.starts_with(name.as_bytes()))
        {
            return Ok(FieldValue {
                kind,
                start,
                end: start + name.len(),
            });
        }
    }
    Err(if start >= json.len() {
        NotJson::End
    } else {
        NotJson::Value
    })
}

/// Reads a number, `-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?`. What follows it is judged by
/// the caller: in `01` and in `1.` the number ends after its first digit, and what follows is
/// refused.
#[inline]
fn number(json: &[u8], start: usize) -> Result<FieldValue, NotJson> {
    let first = start + usize::from(byte(json, start) == b'-');
    let mut end = if byte(json, first) == b'0' {
        first + 1
    } else {
        digits_end(json, first)
    };
    if end == first {
        return literal(json, start);
    }
    let whole_digits = end - first;
    let mut kind = ValueKind::Integer;
    if byte(json, end) == b'.' {
        let after = digits_end(json, end + 1);
        if after > end + 1 {
            (end, kind) = (after, ValueKind::Float);
        }
    }
    if matches!(byte(json, end), b'e' | b'E') {
        let power = end + 1 + usize::from(matches!(byte(json, end + 1), b'+' | b'-'));
        let after = digits_end(json, power);
        if after > power {
            (end, kind) = (after, ValueKind::Float);
        }
    }
    if kind == ValueKind::Integer && whole_digits > INTEGER_DIGITS_MAX {
        return Err(NotJson::LongInteger);
    }
    Ok(FieldValue { kind, start, end })
}

/// Reads a string from `start`, the place after its first quote.
#[inline]
fn string(json: &[u8], start: usize) -> Result<FieldValue, NotJson> {
    let end = plain_end(json, start);
    if byte(json, end) == b'"' {
        Ok(FieldValue {
            kind: ValueKind::String,
            start,
            end,
        })
    } else {
        odd_string(json, start, end)
    }
}

/// Reads a string that has a backslash or a control character at `at`, or that ends there too
/// early.
#[cold]
fn odd_string(json: &[u8], start: usize, mut at: usize) -> Result<FieldValue, NotJson> {
    loop {
        match json.get(at) {
            Some(b'"') => {
                return Ok(FieldValue {
                    kind: ValueKind::Escaped,
                    start,
                    end: at,
                });
            }
            Some(b'\\') => match byte(json, at + 1) {
                b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => {
                    at = plain_end(json, at + 2)
                }
                b'u' if hex4(json, at + 2).is_some() => at = plain_end(json, at + 6),
                _ => return Err(NotJson::Escape),
            },
            Some(_) => return Err(NotJson::Control),
            None => return Err(NotJson::StringEnd),
        }
    }
}

/// The one of `children` that has this name, or [`UNWANTED`].
#[inline]
fn child(nodes: &[Node], children: Range<usize>, name: &[u8]) -> usize {
    let mut child = children.start;
    while child < children.end {
        let node = &nodes[child];
        if *node.name == *name {
            return child;
        }
        child = node.end;
    }
    UNWANTED
}

/// Adds the nodes below one node. `paths` are sorted, and all of them share the `depth` names that
/// lead to that node.
fn add_children(nodes: &mut Vec<Node>, paths: &[&[String]], depth: usize) {
    let longer = &paths[paths.partition_point(|path| path.len() == depth)..];
    for paths in longer.chunk_by(|a, b| a[depth] == b[depth]) {
        let node = nodes.len();
        nodes.push(Node {
            name: paths[0][depth].as_bytes().into(),
            end: 0,
        });
        add_children(nodes, paths, depth + 1);
        nodes[node].end = nodes.len();
    }
}

impl FieldValue {
    /// The text of a number, or what stands between the quotes of a string. `json` is the document
    /// that was read.
    #[must_use]
    #[inline]
    pub fn raw(self, json: &[u8]) -> &[u8] {
        &json[self.start..self.end]
    }
}
