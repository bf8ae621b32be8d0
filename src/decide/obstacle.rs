//! What keeps a snapshot from being retired or removed, whatever the policy says.

use std::fmt;

use crate::tell::escape::{shell_word, unescape};

/// Why a file or directory cannot be moved away and removed like others. They are in the order in
/// which the administrator has to end them: before `umount`, a `chattr -R` would change what is
/// mounted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Obstacle {
    /// Something is mounted on it.
    Mount,
    /// It is a btrfs subvolume, which another program made.
    Subvolume,
    /// It has the immutable flag.
    Immutable,
    /// It has the append-only flag.
    AppendOnly,
}

impl Obstacle {
    /// The command that ends the obstacle at `path`, which is quoted for a shell already.
    pub fn command(self, path: &str) -> String {
        match self {
            Obstacle::Subvolume => format!("btrfs subvolume delete {path}"),
            Obstacle::Mount => format!("umount {path}"),
            Obstacle::Immutable => format!("chattr -R -i {path}"),
            Obstacle::AppendOnly => format!("chattr -R -a {path}"),
        }
    }
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Obstacle::Mount => "something is mounted on it",
            Obstacle::Subvolume => "it is a btrfs subvolume",
            Obstacle::Immutable => "it has the immutable flag",
            Obstacle::AppendOnly => "it has the append-only flag",
        })
    }
}

/// At most this many obstacles are listed.
const MAX_TOLD: usize = 5;

/// Obstacles to the removal of trees. As text, each comes with its command, up to [`MAX_TOLD`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Obstacles(Vec<LocatedObstacle>);

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct LocatedObstacle {
    obstacle: Obstacle,
    path: String,
    /// How many entries at `path` or below it have the flag.
    entries: usize,
}

impl Obstacles {
    /// The obstacles in several trees: each with its path, escaped.
    pub fn of_each(found: impl IntoIterator<Item = (String, Obstacle)>) -> Self {
        let found = found.into_iter().map(|(path, obstacle)| LocatedObstacle {
            obstacle,
            path,
            entries: 1,
        });
        let mut found: Vec<LocatedObstacle> = found.collect();
        found.sort_unstable();
        Obstacles(found)
    }

    /// The obstacles in the one tree at `tree`. One command clears a flag from all entries that
    /// have it.
    pub fn of_tree(tree: &str, found: impl IntoIterator<Item = (String, Obstacle)>) -> Self {
        let Obstacles(mut found) = Obstacles::of_each(found);
        for flag in [Obstacle::Immutable, Obstacle::AppendOnly] {
            let entries = found.iter().filter(|one| one.obstacle == flag).count();
            if entries > 1 {
                found.retain(|one| one.obstacle != flag);
                found.push(LocatedObstacle { obstacle: flag, path: tree.to_string(), entries });
            }
        }
        found.sort_unstable();
        Obstacles(found)
    }

    /// Whether no obstacle is known.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for LocatedObstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let LocatedObstacle { obstacle, path, entries } = self;
        match (entries, obstacle) {
            (1, _) => write!(f, "{path}: {obstacle}")?,
            (_, Obstacle::AppendOnly) => {
                write!(f, "{path}: {entries} entries in it have the append-only flag")?;
            }
            _ => write!(f, "{path}: {entries} entries in it have the immutable flag")?,
        }
        let bytes = unescape(path).unwrap_or_else(|| path.as_bytes().to_vec());
        write!(f, "; run `{}`", obstacle.command(&shell_word(&bytes)))
    }
}

impl fmt::Display for Obstacles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, found) in self.0.iter().take(MAX_TOLD).enumerate() {
            write!(f, "{}{found}", if index == 0 { "" } else { "; " })?;
        }
        match self.0.len().saturating_sub(MAX_TOLD) {
            0 => Ok(()),
            more => write!(f, "; and {more} more"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_tree(found: &[(&str, Obstacle)]) -> String {
        let found = found.iter().map(|(path, obstacle)| (path.to_string(), *obstacle));
        Obstacles::of_tree("/t", found).to_string()
    }

    #[test]
    fn each_obstacle_is_told_with_its_command() {
        use Obstacle::{AppendOnly, Immutable, Mount, Subvolume};
        for (found, expected) in [
            (&[][..], ""),
            (&[("/t/a", Mount)], "/t/a: something is mounted on it; run `umount /t/a`"),
            (
                &[("/t/a", Immutable), ("/t/b", Subvolume)],
                "/t/b: it is a btrfs subvolume; run `btrfs subvolume delete /t/b`; \
                 /t/a: it has the immutable flag; run `chattr -R -i /t/a`",
            ),
            (
                &[("/t/a", AppendOnly), ("/t/b", AppendOnly)],
                "/t: 2 entries in it have the append-only flag; run `chattr -R -a /t`",
            ),
        ] {
            assert_eq!(of_tree(found), expected, "{found:?}");
        }
    }

    #[test]
    fn no_more_than_a_few_obstacles_are_told() {
        let found = ["/1", "/2", "/3", "/4", "/5", "/6", "/7"].map(|path| (path, Obstacle::Mount));
        assert!(of_tree(&found[..5]).ends_with("run `umount /5`"));
        assert!(of_tree(&found).ends_with("run `umount /5`; and 2 more"));
    }
}
