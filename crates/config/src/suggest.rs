//! "Did you mean": the nearest of the words that would have been right.

/// Words longer than this get no suggestion: the comparison costs the product of the lengths.
const MAX_LEN: usize = 64;

/// The candidate that `word` is probably a misspelling of.
pub(crate) fn nearest<'a>(
    word: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    if word.is_empty() || word.len() > MAX_LEN {
        return None;
    }
    let lower: Vec<char> = word.to_lowercase().chars().collect();
    // Of one or two letters anything would be near.
    let bound = match lower.len() {
        0..=2 => 0,
        n => (n / 3).clamp(1, 4),
    };
    candidates
        .into_iter()
        .filter(|c| c.len() <= MAX_LEN)
        .map(|c| {
            let chars: Vec<char> = c.to_lowercase().chars().collect();
            (apart(&lower, &chars), c)
        })
        .filter(|(d, _)| *d <= bound)
        .min()
        .map(|(_, c)| c)
}

/// A hint for people: `did you mean "x"?`, or nothing.
pub(crate) fn hint<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> String {
    nearest(word, candidates)
        .map(|c| format!("did you mean \"{c}\"?"))
        .unwrap_or_default()
}

/// How far two words are apart: a word that is a part of the other counts as one edit.
fn apart(a: &[char], b: &[char]) -> usize {
    let (short, long) = if a.len() < b.len() { (a, b) } else { (b, a) };
    let part = short.len() > 3 && long.windows(short.len()).any(|w| w == short);
    let edits = distance(a, b);
    if part { edits.min(1) } else { edits }
}

/// Edits between two words, a swap of neighbours counted as one (optimal string alignment).
fn distance(a: &[char], b: &[char]) -> usize {
    let width = b.len() + 1;
    let mut rows = vec![0usize; (a.len() + 1) * width];
    for i in 0..=a.len() {
        for j in 0..=b.len() {
            rows[i * width + j] = if i == 0 || j == 0 {
                i + j
            } else {
                let same = a[i - 1] == b[j - 1];
                let mut best = (rows[(i - 1) * width + j] + 1)
                    .min(rows[i * width + j - 1] + 1)
                    .min(rows[(i - 1) * width + j - 1] + usize::from(!same));
                if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                    best = best.min(rows[(i - 2) * width + j - 2] + 1);
                }
                best
            };
        }
    }
    rows[a.len() * width + b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_pen_is_recognised_and_another_word_is_not() {
        let words = ["reviews", "ratings", "backendRefs"];
        assert_eq!(nearest("revews", words), Some("reviews"));
        assert_eq!(nearest("Reviews", words), Some("reviews"));
        assert_eq!(nearest("reveiws", words), Some("reviews"));
        assert_eq!(nearest("backendRef", words), Some("backendRefs"));
        assert_eq!(nearest("view", words), Some("reviews"));
        assert_eq!(nearest("payments", words), None);
        assert_eq!(nearest("a", ["b"]), None);
        assert_eq!(nearest("", words), None);
        assert_eq!(nearest(&"r".repeat(10_000), words), None);
    }
}
