//! A row of a case's table: a request, and what is to come of it.
//!
//! Backends answer with who they are (`x-served-by`) and, as the body, with the head of the request
//! as it came to them.

use std::fmt::{self, Write as _};

use testkit::raw::Response;

/// A request and what is to come of it.
#[derive(Debug, Clone)]
pub(crate) struct Ask {
    path: &'static str,
    host: Option<&'static str>,
    headers: Vec<(&'static str, &'static str)>,
    want: Want,
}

/// What is to come of a request.
#[derive(Debug, Clone, Default)]
struct Want {
    /// 200 unless said.
    status: Option<u16>,
    /// Which backend.
    by: Option<&'static str>,
    /// Where to, with scheme and host.
    location: Option<&'static str>,
    /// What the backend sees.
    path: Option<&'static str>,
    sees: Vec<(&'static str, &'static str)>,
    lacks: Vec<&'static str>,
    /// What the client gets.
    gets: Vec<(&'static str, &'static str)>,
    misses: Vec<&'static str>,
}

/// A GET; nothing is expected of it yet but 200.
pub(crate) fn get(path: &'static str) -> Ask {
    Ask {
        path,
        host: None,
        headers: Vec::new(),
        want: Want::default(),
    }
}

impl Ask {
    /// For this host, not the case's own.
    pub(crate) fn host(mut self, host: &'static str) -> Self {
        self.host = Some(host);
        self
    }

    /// With this header.
    pub(crate) fn with(mut self, name: &'static str, value: &'static str) -> Self {
        self.headers.push((name, value));
        self
    }

    /// This backend answers.
    pub(crate) fn by(mut self, backend: &'static str) -> Self {
        self.want.by = Some(backend);
        self
    }

    /// The answer has this status.
    pub(crate) fn status(mut self, status: u16) -> Self {
        self.want.status = Some(status);
        self
    }

    /// The answer is a redirect to there.
    pub(crate) fn redirect(mut self, status: u16, location: &'static str) -> Self {
        self.want.location = Some(location);
        self.status(status)
    }

    /// The backend sees this path.
    pub(crate) fn seen_at(mut self, path: &'static str) -> Self {
        self.want.path = Some(path);
        self
    }

    /// The backend sees this header; several of one name joined by commas.
    pub(crate) fn sees(mut self, name: &'static str, value: &'static str) -> Self {
        self.want.sees.push((name, value));
        self
    }

    /// The backend sees no such header.
    pub(crate) fn lacks(mut self, name: &'static str) -> Self {
        self.want.lacks.push(name);
        self
    }

    /// The answer has this header.
    pub(crate) fn gets(mut self, name: &'static str, value: &'static str) -> Self {
        self.want.gets.push((name, value));
        self
    }

    /// The answer has no such header.
    pub(crate) fn misses(mut self, name: &'static str) -> Self {
        self.want.misses.push(name);
        self
    }

    /// The host asked for.
    pub(crate) fn host_or<'a>(&self, case: &'a str) -> &'a str {
        self.host.unwrap_or(case)
    }

    /// The path asked for.
    pub(crate) fn path(&self) -> &'static str {
        self.path
    }

    /// The headers, as lines.
    pub(crate) fn lines(&self) -> String {
        self.headers.iter().fold(String::new(), |mut all, (n, v)| {
            let _ = write!(all, "{n}: {v}\r\n");
            all
        })
    }

    /// Asks, and says what is otherwise than it should be.
    pub(crate) fn judge(&self, send: impl FnOnce(&Self) -> Response) -> Result<(), String> {
        let response = send(self);
        self.compare(&response)
            .map_err(|why| format!("{self}: {why}; the answer: {response:?}"))
    }

    fn compare(&self, response: &Response) -> Result<(), String> {
        let want = &self.want;
        same("status", &response.status, &want.status.unwrap_or(200))?;
        let answered = |name: &str| response.header(&name.to_ascii_lowercase());
        if want.by.is_some() {
            same("backend", &answered("x-served-by"), &want.by)?;
        }
        if want.location.is_some() {
            same("location", &answered("location"), &want.location)?;
        }
        for (name, value) in &want.gets {
            same(name, &answered(name), &Some(*value))?;
        }
        for name in &want.misses {
            same(name, &answered(name), &None)?;
        }
        let text = response.text();
        let mut lines = text.lines();
        let path = lines.next().and_then(|line| line.split(' ').nth(1));
        if want.path.is_some() {
            same("path at the backend", &path, &want.path)?;
        }
        let seen = |name: &str| {
            let values: Vec<&str> = text
                .lines()
                .filter_map(|line| line.split_once(": "))
                .filter(|(n, _)| n.eq_ignore_ascii_case(name))
                .map(|(_, value)| value)
                .collect();
            (!values.is_empty()).then(|| values.join(","))
        };
        for (name, value) in &want.sees {
            same(name, &seen(name).as_deref(), &Some(*value))?;
        }
        for name in &want.lacks {
            same(name, &seen(name), &None)?;
        }
        Ok(())
    }
}

fn same<T: PartialEq + fmt::Debug>(what: &str, is: &T, want: &T) -> Result<(), String> {
    if is == want {
        Ok(())
    } else {
        Err(format!("{what} is {is:?}, not {want:?}"))
    }
}

impl fmt::Display for Ask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GET {}", self.path)?;
        if let Some(host) = self.host {
            write!(f, " of {host}")?;
        }
        for (name, value) in &self.headers {
            write!(f, " {name}: {value}")?;
        }
        Ok(())
    }
}
