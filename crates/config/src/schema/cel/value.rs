//! What a user wrote, as CEL sees it: lists and maps whose copies share their content, and texts that
//! are borrowed from the document.
//!
//! A field whose name is a word of CEL's is `__namespace__` in rules, as Kubernetes has it.

use std::slice;
use std::sync::Arc;

use ::cel::ExecutionError;
use ::cel::common::traits::{Container, Indexer, Iterable, Iterator, Sizer};
use ::cel::common::types::{
    CelBool, CelDouble, CelInt, CelNull, CelString, LIST_TYPE, MAP_TYPE, Type,
};
use ::cel::common::value::{CowVal, Val};

use crate::yaml::{self, Node};

/// A value that may borrow from a document.
pub(in crate::schema) type Boxed<'v> = Box<dyn Val + 'v>;

/// A value that has no parts.
pub(in crate::schema) fn scalar(node: &Node) -> Boxed<'_> {
    match &node.value {
        yaml::Value::Bool(b) => Box::new(CelBool::from(*b)),
        yaml::Value::Int(i) => Box::new(CelInt::from(i64::try_from(*i).unwrap_or(i64::MAX))),
        yaml::Value::Float(f) => Box::new(CelDouble::from(*f)),
        yaml::Value::Text(text) => Box::new(CelString::from(text.as_str())),
        yaml::Value::Null | yaml::Value::List(_) | yaml::Value::Map(_) => Box::new(CelNull),
    }
}

/// A list of these.
pub(in crate::schema) fn list<'v>(items: impl Into<Arc<[Boxed<'v>]>>) -> Boxed<'v> {
    Box::new(List(items.into()))
}

/// A map of these, each key once.
pub(in crate::schema) fn map<'v>(entries: Vec<(&'v str, Boxed<'v>)>) -> Boxed<'v> {
    let entries = entries.into_iter().map(|(k, v)| (CelString::from(k), v));
    Box::new(Map(entries.collect()))
}

#[derive(Debug)]
struct List<'v>(Arc<[Boxed<'v>]>);

#[derive(Debug)]
struct Map<'v>(Arc<[(CelString<'v>, Boxed<'v>)]>);

impl Val for List<'_> {
    fn get_type(&self) -> &Type {
        &LIST_TYPE
    }

    fn cel_type() -> &'static Type {
        &LIST_TYPE
    }

    fn as_container(&self) -> Option<&dyn Container> {
        Some(self)
    }

    fn as_indexer<'b, 'w>(&'b self) -> Option<&'b (dyn Indexer + 'w)>
    where
        Self: 'w,
    {
        Some(self)
    }

    fn as_iterable<'b, 'w>(&'b self) -> Option<&'b (dyn Iterable + 'w)>
    where
        Self: 'w,
    {
        Some(self)
    }

    fn as_sizer(&self) -> Option<&dyn Sizer> {
        Some(self)
    }

    fn equals(&self, other: &dyn Val) -> bool {
        let Some(others) = other.as_iterable() else {
            return false;
        };
        let mut others = others.iter();
        let same = |item: &Boxed<'_>| others.next().is_some_and(|o| item.equals(o));
        *other.get_type() == LIST_TYPE && self.0.iter().all(same) && others.next().is_none()
    }

    fn clone_as_boxed<'w>(&self) -> Box<dyn Val + 'w>
    where
        Self: 'w,
    {
        Box::new(Self(Arc::clone(&self.0)))
    }
}

impl Container for List<'_> {
    fn contains(&self, value: &dyn Val) -> Result<bool, ExecutionError> {
        Ok(self.0.iter().any(|item| item.equals(value)))
    }
}

impl Indexer for List<'_> {
    fn get<'b, 'w>(&'b self, index: &dyn Val) -> Result<CowVal<'b, 'w>, ExecutionError>
    where
        Self: 'w,
    {
        let number = index.downcast_ref::<CelInt>().map(|i| *i.inner());
        number
            .and_then(|number| self.0.get(usize::try_from(number).ok()?))
            .map(|item| CowVal::Borrowed(item.as_ref()))
            .ok_or_else(|| ExecutionError::no_such_key("index"))
    }

    fn steal<'w>(self: Box<Self>, index: &dyn Val) -> Result<Box<dyn Val + 'w>, ExecutionError>
    where
        Self: 'w,
    {
        Ok(self.get(index)?.into_owned())
    }
}

impl Iterable for List<'_> {
    fn iter<'b, 'w>(&'b self) -> Box<dyn Iterator<'b, 'w> + 'b>
    where
        Self: 'w,
    {
        Box::new(Items(self.0.iter()))
    }
}

impl Sizer for List<'_> {
    fn size(&self) -> CelInt {
        CelInt::from(i64::try_from(self.0.len()).unwrap_or(i64::MAX))
    }
}

impl<'v> Map<'v> {
    fn find<'b>(&'b self, key: &str) -> Option<&'b Boxed<'v>> {
        let find = |key: &str| self.0.iter().find(|(k, _)| k.inner() == key);
        let own_name = || find(key.strip_prefix("__")?.strip_suffix("__")?);
        find(key).or_else(own_name).map(|(_, value)| value)
    }
}

impl Val for Map<'_> {
    fn get_type(&self) -> &Type {
        &MAP_TYPE
    }

    fn cel_type() -> &'static Type {
        &MAP_TYPE
    }

    fn as_container(&self) -> Option<&dyn Container> {
        Some(self)
    }

    fn as_indexer<'b, 'w>(&'b self) -> Option<&'b (dyn Indexer + 'w)>
    where
        Self: 'w,
    {
        Some(self)
    }

    fn as_iterable<'b, 'w>(&'b self) -> Option<&'b (dyn Iterable + 'w)>
    where
        Self: 'w,
    {
        Some(self)
    }

    fn as_sizer(&self) -> Option<&dyn Sizer> {
        Some(self)
    }

    fn equals(&self, other: &dyn Val) -> bool {
        let Some(others) = other.as_indexer() else {
            return false;
        };
        let same = |(key, value): &(CelString<'_>, Boxed<'_>)| {
            others.get(key).is_ok_and(|o| value.equals(o.as_ref()))
        };
        other.as_sizer().is_some_and(|s| s.size() == self.size()) && self.0.iter().all(same)
    }

    fn clone_as_boxed<'w>(&self) -> Box<dyn Val + 'w>
    where
        Self: 'w,
    {
        Box::new(Self(Arc::clone(&self.0)))
    }
}

impl Container for Map<'_> {
    fn contains(&self, key: &dyn Val) -> Result<bool, ExecutionError> {
        Ok(self.get(key).is_ok())
    }
}

impl Indexer for Map<'_> {
    fn get<'b, 'w>(&'b self, key: &dyn Val) -> Result<CowVal<'b, 'w>, ExecutionError>
    where
        Self: 'w,
    {
        let key = key
            .downcast_ref::<CelString<'_>>()
            .map_or("", |key| key.inner());
        self.find(key)
            .map(|value| CowVal::Borrowed(value.as_ref()))
            .ok_or_else(|| ExecutionError::no_such_key(key))
    }

    fn steal<'w>(self: Box<Self>, key: &dyn Val) -> Result<Box<dyn Val + 'w>, ExecutionError>
    where
        Self: 'w,
    {
        Ok(self.get(key)?.into_owned())
    }
}

impl Iterable for Map<'_> {
    fn iter<'b, 'w>(&'b self) -> Box<dyn Iterator<'b, 'w> + 'b>
    where
        Self: 'w,
    {
        Box::new(Keys(self.0.iter()))
    }
}

impl Sizer for Map<'_> {
    fn size(&self) -> CelInt {
        CelInt::from(i64::try_from(self.0.len()).unwrap_or(i64::MAX))
    }
}

struct Items<'b, 'v>(slice::Iter<'b, Boxed<'v>>);

impl<'b, 'v: 'w, 'w> Iterator<'b, 'w> for Items<'b, 'v> {
    fn next(&mut self) -> Option<&'b (dyn Val + 'w)> {
        let item = self.0.next()?;
        Some(item.as_ref())
    }
}

struct Keys<'b, 'v>(slice::Iter<'b, (CelString<'v>, Boxed<'v>)>);

impl<'b, 'v: 'w, 'w> Iterator<'b, 'w> for Keys<'b, 'v> {
    fn next(&mut self) -> Option<&'b (dyn Val + 'w)> {
        let (key, _) = self.0.next()?;
        Some(key)
    }
}
