//! Recordings of what a node posted: one JSON object a line, plain or gzip.
//!
//! Not an interpretation of the payloads. Memory stays at one line whatever the file's size.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek};
use std::path::{Path, PathBuf};

use flate2::bufread::MultiGzDecoder;
use serde::Deserialize;

use crate::json::JsonText;

/// One POST.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Post {
    /// Number in order of arrival, from 1; 0 where the recorder gave none.
    #[serde(default)]
    pub seq: u64,
    /// When it came, as the recorder wrote it.
    #[serde(default)]
    pub received_at: Option<String>,
    /// For example `/new_block`.
    pub path: String,
    /// The body.
    pub payload: JsonText,
}

/// Why a recording cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum RecordingError {
    /// The file cannot be opened, or its compression is damaged.
    #[error("cannot read {path} at line {line}")]
    Read {
        /// The file.
        path: PathBuf,
        /// From 1; 0 before the first.
        line: u64,
        /// What the system says.
        source: std::io::Error,
    },
    /// A line is no recorded POST.
    #[error("{path} line {line} is not a recorded POST (an object with path and payload)")]
    Line {
        /// The file.
        path: PathBuf,
        /// From 1.
        line: u64,
        /// What the parser says.
        source: serde_json::Error,
    },
}

/// The POSTs of a recording, in order.
pub struct Recording {
    path: PathBuf,
    lines: Box<dyn BufRead + Send>,
    line: u64,
}

impl Recording {
    /// Opens `.ndjson` or `.ndjson.gz`; the content decides, not the name.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn open(path: &Path) -> Result<Self, RecordingError> {
        let failed = |source| RecordingError::Read { path: path.to_owned(), line: 0, source };
        let mut file = File::open(path).map_err(failed)?;
        let mut magic = Vec::new();
        (&mut file).take(2).read_to_end(&mut magic).map_err(failed)?;
        file.rewind().map_err(failed)?;
        let file = BufReader::new(file);
        let lines: Box<dyn BufRead + Send> =
            if magic == [0x1f, 0x8b] { Box::new(BufReader::new(MultiGzDecoder::new(file))) } else { Box::new(file) };
        Ok(Self { path: path.to_owned(), lines, line: 0 })
    }

    fn read(&mut self) -> Result<Option<Post>, RecordingError> {
        let mut text = String::new();
        while text.trim().is_empty() {
            text.clear();
            let failed = |source| RecordingError::Read { path: self.path.clone(), line: self.line + 1, source };
            if self.lines.read_line(&mut text).map_err(failed)? == 0 {
                return Ok(None);
            }
            self.line += 1;
        }
        let failed = |source| RecordingError::Line { path: self.path.clone(), line: self.line, source };
        serde_json::from_str(&text).map(Some).map_err(failed)
    }
}

impl Iterator for Recording {
    type Item = Result<Post, RecordingError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.read().transpose()
    }
}
