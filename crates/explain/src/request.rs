//! A request as it is written on a command line: `GET https://shop.example/cart?x=1`.

use http::Method;
use model::SpiffeId;
use wire::Fields;

/// What is sent, and over what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// HTTP in the clear.
    Http,
    /// HTTP inside TLS.
    Https,
    /// A TLS connection of which only the server name is looked at.
    Tls,
    /// A connection.
    Tcp,
    /// Datagrams.
    Udp,
}

/// A request, or a connection.
#[derive(Debug)]
pub struct Request {
    /// What is sent.
    pub scheme: Scheme,
    /// Host of the URL, as written, without its port; may be empty for TCP and UDP.
    pub host: String,
    /// Port of the URL, or that of the scheme.
    pub port: u16,
    /// The method; `GET` where there is none.
    pub method: Method,
    /// Path and query, beginning with a slash.
    pub target: String,
    /// `Host`, or `:authority`: the URL's, unless a header says otherwise.
    pub authority: String,
    /// Further headers.
    pub headers: Fields,
}

/// Who sends it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Caller {
    /// A workload of the mesh, of some namespace.
    Somebody {
        /// The namespace from which short host names are read.
        namespace: String,
    },
    /// A workload that proves who it is.
    Identity(SpiffeId),
    /// A client without a proxy and without an identity.
    Plain {
        /// The namespace from which short host names are read.
        namespace: String,
    },
}

/// A text that is no request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidRequest {
    /// No scheme that is known.
    #[error(
        "\"{0}\" is no request: write a method and a URL, such as 'GET https://shop.example/cart', or tls://HOST:PORT, tcp://HOST:PORT, udp://HOST:PORT"
    )]
    Scheme(String),
    /// The method is none.
    #[error("\"{0}\" is no method; write it in capitals, such as GET")]
    Method(String),
    /// Host or port are none.
    #[error("\"{0}\" is not HOST or HOST:PORT, with a port from 1 to 65535")]
    Authority(String),
    /// There is no port, and none that goes without saying.
    #[error("\"{0}\" names no port; write it behind the host, such as tcp://db.shop:5432")]
    Port(String),
    /// What follows the host cannot stand in a URL.
    #[error("\"{0}\" cannot be sent as a path; escape its blanks and special characters as %XX")]
    Target(String),
    /// A header is none.
    #[error("header \"{0}\" is not NAME:VALUE")]
    Header(String),
}

impl Request {
    /// Reads `[METHOD] URL` and headers of the form `name:value`.
    pub fn parse(text: &str, headers: &[String]) -> Result<Self, InvalidRequest> {
        let text = text.trim();
        let (method, url) = match text.split_once(char::is_whitespace) {
            Some((method, url)) => (method, url.trim()),
            None => ("GET", text),
        };
        let unknown = || InvalidRequest::Scheme(shorten(text));
        let (scheme, rest) = url.split_once("://").ok_or_else(unknown)?;
        let (scheme, usual) = match scheme.to_ascii_lowercase().as_str() {
            "http" => (Scheme::Http, Some(80)),
            "https" => (Scheme::Https, Some(443)),
            "tls" => (Scheme::Tls, Some(443)),
            "tcp" => (Scheme::Tcp, None),
            "udp" => (Scheme::Udp, None),
            _ => return Err(unknown()),
        };
        let valid =
            !method.is_empty() && method.bytes().all(|b| b.is_ascii_uppercase() || b == b'-');
        let method = valid
            .then(|| Method::from_bytes(method.as_bytes()).ok())
            .flatten()
            .ok_or_else(|| InvalidRequest::Method(shorten(method)))?;
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, target) = rest.split_at(end);
        let (host, port) = authority_of(authority, scheme)?;
        let port = port
            .or(usual)
            .ok_or_else(|| InvalidRequest::Port(shorten(url)))?;
        let mut request = Self {
            scheme,
            host,
            port,
            method,
            target: target_of(target)?,
            authority: authority.to_owned(),
            headers: Fields::new(),
        };
        for header in headers {
            request.add(header)?;
        }
        Ok(request)
    }

    /// Adds `name:value`; `host` replaces the URL's.
    fn add(&mut self, header: &str) -> Result<(), InvalidRequest> {
        let invalid = || InvalidRequest::Header(shorten(header));
        let (name, value) = header.split_once(':').ok_or_else(invalid)?;
        let (name, value) = (name.trim(), value.trim_matches([' ', '\t']));
        let name = http::HeaderName::try_from(name).map_err(|_| invalid())?;
        let value = http::HeaderValue::try_from(value).map_err(|_| invalid())?;
        if name == http::header::HOST {
            let text = value.to_str().map_err(|_| invalid())?;
            authority_of(text, Scheme::Http)?;
            text.clone_into(&mut self.authority);
        } else {
            self.headers.append(name.as_str(), value.as_bytes());
        }
        Ok(())
    }

    /// The path without its query.
    pub fn path(&self) -> &str {
        self.target.split_once('?').map_or(&self.target, |(p, _)| p)
    }

    /// What follows the `?`.
    pub fn query(&self) -> Option<&str> {
        self.target.split_once('?').map(|(_, query)| query)
    }

    /// The host that the request is for, as names are compared.
    pub fn asked_host(&self) -> String {
        policy::host::normal(wire::host::host(&self.authority)).into_owned()
    }

    /// The server name that a client sends, as names are compared: that of the URL, unless it is an
    /// address (RFC 6066, 3).
    pub fn server_name(&self) -> Option<String> {
        let host = policy::host::normal(&self.host).into_owned();
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let address = bare.parse::<std::net::IpAddr>().is_ok();
        (!address && !host.is_empty()).then_some(host)
    }

    /// Whether it is one of HTTP.
    pub fn is_http(&self) -> bool {
        matches!(self.scheme, Scheme::Http | Scheme::Https)
    }
}

impl Scheme {
    /// As it stands in a URL.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
            Self::Tls => "tls",
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

impl std::fmt::Display for Request {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let scheme = self.scheme.as_str();
        if self.is_http() {
            write!(
                f,
                "{} {scheme}://{}{}",
                self.method, self.authority, self.target
            )
        } else {
            write!(f, "{scheme}://{}:{}", self.host, self.port)
        }
    }
}

impl Caller {
    /// The namespace from which short host names are read.
    pub fn namespace(&self) -> &str {
        match self {
            Self::Somebody { namespace } | Self::Plain { namespace } => namespace,
            Self::Identity(id) => id
                .service_account()
                .map_or(model::name::DEFAULT_NAMESPACE, |(namespace, _)| namespace),
        }
    }
}

fn authority_of(text: &str, scheme: Scheme) -> Result<(String, Option<u16>), InvalidRequest> {
    let invalid = || InvalidRequest::Authority(shorten(text));
    let host = wire::host::host(text);
    // `tcp://:5432` is any address on that port.
    let anywhere = host.is_empty() && matches!(scheme, Scheme::Tcp | Scheme::Udp);
    if !anywhere && !wire::host::is_authority(text.as_bytes()) {
        return Err(invalid());
    }
    let port = wire::host::number(text);
    if port.is_none() && host.len() < text.len() && !text.ends_with(':') {
        return Err(invalid());
    }
    Ok((host.to_owned(), port))
}

/// Path and query as a client would send them; a fragment stays at home.
fn target_of(text: &str) -> Result<String, InvalidRequest> {
    let text = text.split('#').next().unwrap_or_default();
    let text = match text.as_bytes().first() {
        Some(b'/') => text.to_owned(),
        _ => format!("/{text}"),
    };
    let sendable = text
        .bytes()
        .all(|b| b.is_ascii_graphic() && !matches!(b, b'"' | b'<' | b'>'));
    if sendable {
        Ok(text)
    } else {
        Err(InvalidRequest::Target(shorten(&text)))
    }
}

fn shorten(text: &str) -> String {
    text.chars().take(100).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Request, InvalidRequest> {
        Request::parse(text, &[])
    }

    #[test]
    fn requests_are_read_as_people_write_them() {
        for (text, want) in [
            (
                "GET https://shop.example/cart?x=1",
                "GET https://shop.example/cart?x=1",
            ),
            ("http://shop.example", "GET http://shop.example/"),
            (
                "PUT http://shop.example:8080?x#y",
                "PUT http://shop.example:8080/?x",
            ),
            ("tls://a.example", "tls://a.example:443"),
            ("tcp://:5432", "tcp://:5432"),
            ("udp://[::1]:53", "udp://[::1]:53"),
        ] {
            let request = parse(text).expect(text);
            assert_eq!(request.to_string(), want, "{text}");
        }
    }

    #[test]
    fn what_is_no_request_is_refused() {
        for text in [
            "",
            "GET",
            "/cart",
            "ftp://a/",
            "get http://a/",
            "GET http://",
            "GET http://a:0/",
            "GET http://a:x/",
            "GET http://a@b/",
            "GET http://a/b c",
            "tcp://db.shop",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
        let bad = |header: &str| Request::parse("http://a/", &[header.to_owned()]).is_err();
        assert!(bad("x") && bad("a b: 1") && bad("host: a b"));
    }

    #[test]
    fn a_host_header_replaces_the_authority_and_not_the_server_name() {
        let headers = ["Host: B.example".to_owned(), "x: 1".to_owned()];
        let request = Request::parse("GET https://a.example/", &headers).expect("valid");
        assert_eq!(request.asked_host(), "b.example");
        assert_eq!(request.server_name().as_deref(), Some("a.example"));
        assert_eq!(request.headers.get_str("x"), Some("1"));
        let address = parse("https://10.0.0.1/").expect("valid");
        assert_eq!(address.server_name(), None);
    }
}
