//! What the shop sells.

use crate::proto::Book;

const BOOKS: [(&str, &str, &str, u32, u64); 8] = [
    (
        "9780141439518",
        "Pride and Prejudice",
        "Jane Austen",
        1813,
        899,
    ),
    ("9780141439471", "Frankenstein", "Mary Shelley", 1818, 799),
    ("9780142437247", "Moby-Dick", "Herman Melville", 1851, 1299),
    (
        "9780140449136",
        "Crime and Punishment",
        "Fyodor Dostoevsky",
        1866,
        1399,
    ),
    (
        "9780141439600",
        "A Tale of Two Cities",
        "Charles Dickens",
        1859,
        999,
    ),
    (
        "9780141439556",
        "Wuthering Heights",
        "Emily Brontë",
        1847,
        899,
    ),
    (
        "9780140449266",
        "The Count of Monte Cristo",
        "Alexandre Dumas",
        1844,
        1799,
    ),
    ("9780141439846", "Dracula", "Bram Stoker", 1897, 1099),
];

/// All books.
pub(crate) fn all() -> impl Iterator<Item = Book> {
    BOOKS
        .into_iter()
        .map(|(isbn, title, author, year, price_cents)| Book {
            isbn: isbn.to_owned(),
            title: title.to_owned(),
            author: author.to_owned(),
            year,
            price_cents,
        })
}

/// The numbers of all books.
pub(crate) fn isbns() -> [&'static str; BOOKS.len()] {
    BOOKS.map(|book| book.0)
}
