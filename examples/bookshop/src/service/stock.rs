//! Stock: lines of text over TCP, in the manner of SMTP; the server speaks first.
//!
//! ```text
//! S: 220 stock ready stock-4711
//! C: RESERVE 9780141439518 2 order-1
//! S: 250 reserved 999998
//! ```
//! Also `RELEASE isbn order`, `STOCK isbn`, `QUIT`. An order's reservation counts once, however
//! often it is sent.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::stop::Stop;
use crate::{books, instance, proxy};

const PER_BOOK: u64 = 1_000_000;
const MAX_LINE: u64 = 512;
const MAX_RESERVATIONS: usize = 100_000;
const IDLE: Duration = Duration::from_mins(5);
const GRACE: Duration = Duration::from_secs(5);

pub(crate) async fn serve(listener: TcpListener, stop: Stop) -> anyhow::Result<()> {
    let shelves = Arc::new(Mutex::new(Shelves::default()));
    let mut connections = JoinSet::new();
    let mut stopped = std::pin::pin!(stop.clone().wait());
    loop {
        tokio::select! {
            () = &mut stopped => break,
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    let (shelves, stop) = (Arc::clone(&shelves), stop.clone());
                    connections.spawn(async move { converse(stream, &shelves, stop).await });
                }
                Err(e) => {
                    eprintln!("cannot accept: {e}");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            },
        }
    }
    drop(listener);
    let _ = timeout(GRACE, connections.join_all()).await;
    Ok(())
}

struct Shelves {
    left: HashMap<&'static str, u64>,
    /// By order and book.
    reserved: HashMap<(String, &'static str), u64>,
    order: VecDeque<(String, &'static str)>,
}

impl Default for Shelves {
    fn default() -> Self {
        Self {
            left: books::isbns().map(|isbn| (isbn, PER_BOOK)).into(),
            reserved: HashMap::new(),
            order: VecDeque::new(),
        }
    }
}

impl Shelves {
    fn answer(&mut self, line: &str) -> String {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let known = |isbn: &str| books::isbns().into_iter().find(|known| *known == isbn);
        match *words.as_slice() {
            ["RESERVE", isbn, quantity, order] => match (known(isbn), quantity.parse()) {
                (Some(isbn), Ok(quantity)) => self.reserve(isbn, quantity, order),
                (None, _) => "550 no such book".to_owned(),
                (_, Err(_)) => "501 the quantity is no number".to_owned(),
            },
            ["RELEASE", isbn, order] => {
                let gone = known(isbn).and_then(|isbn| {
                    let quantity = self.reserved.remove(&(order.to_owned(), isbn))?;
                    self.left.entry(isbn).and_modify(|left| *left += quantity);
                    Some(())
                });
                gone.map_or("550 no such reservation", |()| "250 released")
                    .to_owned()
            }
            ["STOCK", isbn] => match self.left.get(isbn) {
                Some(left) => format!("211 {left}"),
                None => "550 no such book".to_owned(),
            },
            ["QUIT"] => "221 bye".to_owned(),
            _ => "500 RESERVE isbn quantity order, RELEASE isbn order, STOCK isbn, QUIT".to_owned(),
        }
    }

    fn reserve(&mut self, isbn: &'static str, quantity: u64, order: &str) -> String {
        let left = self.left.entry(isbn).or_default();
        let key = (order.to_owned(), isbn);
        if self.reserved.contains_key(&key) {
            return format!("250 reserved {left}");
        }
        let Some(rest) = left.checked_sub(quantity) else {
            return format!("552 only {left} left");
        };
        *left = rest;
        self.reserved.insert(key.clone(), quantity);
        self.order.push_back(key);
        if self.order.len() > MAX_RESERVATIONS
            && let Some(oldest) = self.order.pop_front()
        {
            self.reserved.remove(&oldest);
        }
        format!("250 reserved {rest}")
    }
}

async fn converse(
    mut stream: TcpStream,
    shelves: &Mutex<Shelves>,
    stop: Stop,
) -> anyhow::Result<()> {
    stream.set_nodelay(true)?;
    let (read, mut write) = stream.split();
    let mut read = BufReader::new(read);
    let greeting = format!("220 stock ready {}\r\n", instance::name("stock"));
    write.write_all(greeting.as_bytes()).await?;
    let mut stopped = std::pin::pin!(stop.wait());
    loop {
        let line = tokio::select! {
            line = timeout(IDLE, line(&mut read)) => line??,
            () = &mut stopped => {
                write.write_all(b"421 closing\r\n").await?;
                return Ok(());
            }
        };
        let Some(line) = line else {
            return Ok(());
        };
        let mut answer = {
            let mut shelves = shelves.lock().unwrap_or_else(PoisonError::into_inner);
            shelves.answer(&line)
        };
        answer.push_str("\r\n");
        write.write_all(answer.as_bytes()).await?;
        if answer.starts_with("221") {
            return Ok(());
        }
    }
}

/// A line without its end; `None` when there is no more.
async fn line(read: &mut (impl AsyncBufRead + Unpin)) -> anyhow::Result<Option<String>> {
    let mut line = Vec::new();
    read.take(MAX_LINE).read_until(b'\n', &mut line).await?;
    match line.last() {
        None => Ok(None),
        Some(b'\n') => Ok(Some(String::from_utf8_lossy(&line).trim_end().to_owned())),
        Some(_) => bail!("a line was cut off, or is longer than {MAX_LINE} bytes"),
    }
}

/// Why stock was not reserved.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// It answered no.
    No(String),
    /// It did not answer.
    Failed(anyhow::Error),
}

/// Asks a stock service for one thing; what follows the code of its answer.
pub(crate) async fn ask(address: &str, command: &str) -> Result<String, Refusal> {
    let exchange = async {
        let mut stream = proxy::connect(address).await?;
        let (read, mut write) = stream.split();
        let mut read = BufReader::new(read);
        let greeting = line(&mut read).await?.unwrap_or_default();
        if !greeting.starts_with("220 ") {
            bail!("it greeted with \"{greeting}\"");
        }
        let request = format!("{command}\r\n");
        write.write_all(request.as_bytes()).await?;
        let answer = line(&mut read).await?.context("it closed the connection")?;
        write.write_all(b"QUIT\r\n").await?;
        // Until it closes, so that neither side is cut off.
        while line(&mut read).await?.is_some() {}
        Ok(answer)
    };
    let answer = match timeout(Duration::from_secs(10), exchange).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(e)) => return Err(Refusal::Failed(e.context(format!("stock at {address}")))),
        Err(_) => {
            let e = anyhow::anyhow!("stock at {address} did not answer in time");
            return Err(Refusal::Failed(e));
        }
    };
    match answer.split_once(' ') {
        Some((code, text)) if code.starts_with('2') => Ok(text.to_owned()),
        _ => Err(Refusal::No(answer)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_reserves_once_and_may_release() {
        let mut shelves = Shelves::default();
        let isbn = books::isbns()[0];
        let reserve = format!("RESERVE {isbn} 3 o1");
        assert_eq!(shelves.answer(&reserve), "250 reserved 999997");
        assert_eq!(shelves.answer(&reserve), "250 reserved 999997");
        assert_eq!(shelves.answer(&format!("STOCK {isbn}")), "211 999997");
        assert_eq!(
            shelves.answer(&format!("RELEASE {isbn} o1")),
            "250 released"
        );
        assert_eq!(shelves.answer(&format!("STOCK {isbn}")), "211 1000000");
        for (line, code) in [
            (format!("RESERVE {isbn} 1000001 o2"), "552"),
            (format!("RESERVE {isbn} -1 o2"), "501"),
            ("RESERVE 1 1 o2".to_owned(), "550"),
            (format!("RELEASE {isbn} o2"), "550"),
            (String::new(), "500"),
        ] {
            assert!(shelves.answer(&line).starts_with(code), "{line}");
        }
    }
}
