//! The fields of a message: one arena of text and an index into it.
//!
//! Order and letter case are kept as sent (RFC 9110 5.3: order matters among fields of one name).
//! Cloning is two copies of memory, clearing keeps the memory, and reading a head from the wire
//! copies its bytes once. Nothing in here can end a line: a value is sanitised when it is stored, so
//! that one field can never become two on the next hop.
mod kept;

use std::fmt;
use std::ops::Range;

use http::HeaderMap;

use crate::grammar;
use crate::name::{self, Special};
use kept::Kept;

/// An arena never grows beyond this; a field that would not fit is not stored.
const MAX_TEXT: usize = 64 << 20;
/// Replaced values are swept out of the arena when it is larger than this and half of it is dead.
const SWEEP: usize = 64 << 10;

/// Names and values of a message's fields, in order.
#[derive(Default)]
pub struct Fields {
    text: Vec<u8>,
    list: Vec<Field>,
    names: Names,
    kept: Option<Kept>,
}

/// Which names may be there: most that are asked for are not, and need not be looked for.
#[derive(Clone, Copy, Default)]
struct Names(u64);

impl Names {
    const NONE: Self = Self(0);

    /// One of 64 by length and first letter, whatever its case.
    fn bit(name: &[u8]) -> u64 {
        let first = name.first().map_or(0, |byte| byte | 0x20);
        1 << (((name.len() as u8).wrapping_mul(7) ^ first) % 64)
    }

    fn add(&mut self, name: &[u8]) {
        self.0 |= Self::bit(name);
    }

    fn may_have(self, name: &[u8]) -> bool {
        self.0 & Self::bit(name) != 0
    }
}

#[derive(Clone, Copy)]
struct Field {
    name: Span,
    value: Span,
    /// Looked up once, when the field is stored.
    special: Option<Special>,
}

#[derive(Clone, Copy)]
struct Span {
    start: u32,
    len: u32,
}

impl Span {
    fn new(range: &Range<usize>) -> Self {
        Self {
            start: range.start as u32,
            len: range.len() as u32,
        }
    }

    fn end(self) -> usize {
        self.start as usize + self.len as usize
    }

    fn of(self, text: &[u8]) -> &[u8] {
        text.get(self.start as usize..self.end())
            .unwrap_or_default()
    }
}

impl Field {
    /// Where the line ends, if it stands in the arena as it is to be written.
    fn line_end(&self, text: &[u8]) -> Option<usize> {
        let (name_end, end) = (self.name.end(), self.value.end());
        let between = text.get(name_end..self.value.start as usize)?;
        (between == b": " && text.get(end..end + 2)? == b"\r\n").then_some(end + 2)
    }
}

impl Fields {
    /// No fields, no memory.
    pub const fn new() -> Self {
        Self {
            text: Vec::new(),
            list: Vec::new(),
            names: Names::NONE,
            kept: None,
        }
    }

    /// How many field lines.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Whether there is no field.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Forgets all fields and keeps the memory.
    pub fn clear(&mut self) {
        self.text.clear();
        self.list.clear();
        self.names = Names::NONE;
        self.kept = None;
    }

    /// The value of the first field of this name, whatever the case.
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.find(name.as_bytes())
            .map(|field| field.value.of(&self.text))
    }

    /// As [`Self::get`], if the value is text.
    pub fn get_str(&self, name: &str) -> Option<&str> {
        self.get(name)
            .and_then(|value| std::str::from_utf8(value).ok())
    }

    /// The values of all fields of this name, in order.
    pub fn get_all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> + 'a {
        self.places(name.as_bytes())
            .map(|at| self.list[at].value.of(&self.text))
    }

    /// Whether there is a field of this name.
    pub fn contains(&self, name: &str) -> bool {
        self.find(name.as_bytes()).is_some()
    }

    /// Names (as sent) and values, in order.
    pub fn iter(&self) -> Iter<'_> {
        Iter {
            text: &self.text,
            list: self.list.iter(),
        }
    }

    /// Adds a field behind the others. Bytes of the value that no value may hold (RFC 9110 5.5: line
    /// ends and NUL among them) become spaces, and bytes of the name that no name may hold become
    /// `-`, so a field can never become two. A field without a name is not stored.
    pub fn append(&mut self, name: &str, value: &[u8]) {
        if grammar::is_token(name.as_bytes()) {
            return self.append_known(name, value, name::special(name.as_bytes()));
        }
        if !name.is_empty() {
            let mut token = name.as_bytes().to_vec();
            replace(&mut token, grammar::is_token_byte, b'-');
            self.append(&String::from_utf8_lossy(&token), value);
        }
    }

    /// The same for a name that is known to be a token, and its meaning.
    pub(crate) fn append_known(&mut self, name: &str, value: &[u8], special: Option<Special>) {
        if self.text.len() + name.len() + value.len() + 4 > MAX_TEXT {
            return;
        }
        // Stored as it will be written.
        self.text.reserve(name.len() + value.len() + 4);
        let start = self.text.len();
        self.text.extend_from_slice(name.as_bytes());
        self.names.add(name.as_bytes());
        let name = Span::new(&(start..self.text.len()));
        self.text.extend_from_slice(b": ");
        let value = self.store_value(value);
        self.text.extend_from_slice(b"\r\n");
        self.list.push(Field {
            name,
            value,
            special,
        });
    }

    /// Replaces the value of the first field of this name where it stands and removes the others; adds
    /// the field behind the rest if there was none.
    pub fn set(&mut self, name: &str, value: &[u8]) {
        let Some(at) = self.places(name.as_bytes()).next() else {
            return self.append(name, value);
        };
        if self.text.len() + value.len() > MAX_TEXT {
            return;
        }
        let span = self.store_value(value);
        self.list[at].value = span;
        let mut index = 0;
        let lost = self.retain_fields(|text, field| {
            index += 1;
            index <= at + 1 || !eq(field.name.of(text), name.as_bytes())
        });
        if let Some(kept) = self.kept.as_mut().filter(|kept| at < kept.fields) {
            kept.fields -= lost;
            let special = self.list[at].special;
            if !kept.set(name.as_bytes(), span.of(&self.text), special) {
                self.kept = None;
            }
        }
        if self.text.len() > SWEEP && self.text.len() / 2 > self.size() {
            self.sweep();
        }
    }

    /// Removes all fields of this name; whether there was one.
    pub fn remove(&mut self, name: &str) -> bool {
        if !self.contains(name) {
            return false;
        }
        let lost = self.retain_fields(|text, field| !eq(field.name.of(text), name.as_bytes()));
        if let Some(kept) = self.kept.as_mut().filter(|_| lost > 0) {
            kept.remove(name, lost);
        }
        true
    }

    /// Keeps the fields for which `keep(name, value)` says so.
    pub fn retain(&mut self, mut keep: impl FnMut(&[u8], &[u8]) -> bool) {
        let lost =
            self.retain_fields(|text, field| keep(field.name.of(text), field.value.of(text)));
        if lost > 0 {
            self.kept = None;
        }
    }

    /// Keeps the map from which all fields come, and which says nothing else.
    pub(crate) fn keep_map(&mut self, map: HeaderMap) {
        let fields = self.list.len();
        self.kept = Some(Kept { map, fields });
    }

    /// Gives up the memory of a map that they were read from: where they go, there is no use for it.
    pub fn forget_map(&mut self) -> Option<HeaderMap> {
        self.take_kept().map(|(map, _)| map)
    }

    /// Gives up the map that they come from, and how many of the first fields it has.
    pub(crate) fn take_kept(&mut self) -> Option<(HeaderMap, usize)> {
        self.kept.take().map(|kept| (kept.map, kept.fields))
    }

    /// As [`Self::iter`], with what each field means.
    pub(crate) fn iter_known(&self) -> impl Iterator<Item = (&[u8], &[u8], Option<Special>)> {
        let text = &self.text;
        self.list
            .iter()
            .map(|field| (field.name.of(text), field.value.of(text), field.special))
    }

    /// Bytes of all names and values.
    pub fn size(&self) -> usize {
        self.list
            .iter()
            .map(|field| field.name.len as usize + field.value.len as usize)
            .sum()
    }

    /// Takes the bytes in which [`Self::push_span`] said that the fields stand.
    pub(crate) fn load(&mut self, head: &[u8]) {
        self.text.clear();
        self.text.extend_from_slice(head);
        for field in &self.list {
            self.names.add(field.name.of(&self.text));
        }
    }

    /// Adds a field that is known to be valid and stands at these offsets of what is to be loaded.
    pub(crate) fn push_span(
        &mut self,
        name: &Range<usize>,
        value: &Range<usize>,
        special: Option<Special>,
    ) {
        self.list.push(Field {
            name: Span::new(name),
            value: Span::new(value),
            special,
        });
    }

    /// Whether there is such a field.
    pub(crate) fn has(&self, special: Special) -> bool {
        self.list.iter().any(|field| field.special == Some(special))
    }

    /// Writes the field lines; `special(which, name, value, out)` writes those of a meaning.
    ///
    /// Lines that follow one another in the arena as they are to be written, which is how they arrive
    /// from the wire, are copied together.
    pub(crate) fn write_lines(
        &self,
        out: &mut Vec<u8>,
        mut special: impl FnMut(Special, &[u8], &[u8], &mut Vec<u8>),
    ) {
        let text = self.text.as_slice();
        let mut run = 0..0;
        for field in &self.list {
            if field.special.is_none() {
                let start = field.name.start as usize;
                if let Some(end) = field.line_end(text) {
                    if start != run.end {
                        out.extend_from_slice(&text[run]);
                        run = start..start;
                    }
                    run.end = end;
                    continue;
                }
            }
            out.extend_from_slice(&text[std::mem::take(&mut run)]);
            let (name, value) = (field.name.of(text), field.value.of(text));
            match field.special {
                Some(which) => special(which, name, value, out),
                None => {
                    for part in [name, b": ", value, b"\r\n"] {
                        out.extend_from_slice(part);
                    }
                }
            }
        }
        out.extend_from_slice(&text[run]);
    }

    fn find(&self, name: &[u8]) -> Option<&Field> {
        self.places(name).next().map(|at| &self.list[at])
    }

    /// Where in the list the fields of a name stand.
    fn places<'a>(&'a self, name: &'a [u8]) -> impl Iterator<Item = usize> + 'a {
        let list: &[Field] = if self.names.may_have(name) {
            &self.list
        } else {
            &[]
        };
        let is_named = move |field: &Field| {
            field.name.len as usize == name.len() && eq(field.name.of(&self.text), name)
        };
        (0..list.len()).filter(move |at| is_named(&list[*at]))
    }

    /// How many of those that go are in the map that was kept.
    fn retain_fields(&mut self, mut keep: impl FnMut(&[u8], &Field) -> bool) -> usize {
        let text = &self.text;
        let mapped = self.kept.as_ref().map_or(0, |kept| kept.fields);
        let (mut index, mut lost) = (0, 0);
        self.list.retain(|field| {
            let stays = keep(text, field);
            lost += usize::from(!stays && index < mapped);
            index += 1;
            stays
        });
        lost
    }

    fn store_value(&mut self, value: &[u8]) -> Span {
        let start = self.text.len();
        self.text.extend_from_slice(value);
        if !grammar::is_value(value) {
            replace(&mut self.text[start..], grammar::is_value_byte, b' ');
        }
        Span::new(&(start..self.text.len()))
    }

    fn sweep(&mut self) {
        let mut swept = Self::new();
        for (name, value) in &*self {
            swept.append(&String::from_utf8_lossy(name), value);
        }
        swept.kept = self.kept.take();
        *self = swept;
    }
}

#[cold]
fn replace(bytes: &mut [u8], valid: fn(u8) -> bool, instead: u8) {
    for byte in bytes {
        if !valid(*byte) {
            *byte = instead;
        }
    }
}

fn eq(one: &[u8], other: &[u8]) -> bool {
    one.len() == other.len() && one.eq_ignore_ascii_case(other)
}

/// Names and values in order; from [`Fields::iter`].
#[derive(Clone)]
pub struct Iter<'a> {
    text: &'a [u8],
    list: std::slice::Iter<'a, Field>,
}

impl<'a> Iterator for Iter<'a> {
    type Item = (&'a [u8], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        self.list
            .next()
            .map(|field| (field.name.of(self.text), field.value.of(self.text)))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.list.size_hint()
    }
}

impl<'a> IntoIterator for &'a Fields {
    type Item = (&'a [u8], &'a [u8]);
    type IntoIter = Iter<'a>;

    fn into_iter(self) -> Iter<'a> {
        self.iter()
    }
}

impl Clone for Fields {
    fn clone(&self) -> Self {
        Self {
            text: self.text.clone(),
            list: self.list.clone(),
            names: self.names,
            kept: None,
        }
    }
}

/// Same names, letter for letter, and same values, in the same order.
impl PartialEq for Fields {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for Fields {}

/// Values of fields that carry secrets are not printed.
impl fmt::Debug for Fields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut map = f.debug_map();
        for (name, value) in self {
            let name_text = String::from_utf8_lossy(name);
            if name::is_secret(name) {
                map.entry(&name_text, &format_args!("<hidden>"));
            } else {
                map.entry(&name_text, &String::from_utf8_lossy(value));
            }
        }
        map.finish()
    }
}
