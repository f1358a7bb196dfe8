//! Process kit: workers, supervised tasks, signals, readiness and drain.
