//! One place of a client from which one operation at a time is under way.
//!
//! An operation is a list of moves, each a request or a chain; the next move is sent when the one before it is answered.

use std::time::Instant;

use bytes::Bytes;
use shoal_protocol::NtStatus;
use shoal_protocol::smb2::{CreateOptions, CreateResponse, FileId, Request, Response};

use super::bulk::Job;
use super::mix::{self, Mix};
use crate::client::{
    Connection, Reply, Result, Tree, Trouble, close, create, delete_on_close, echo, query_directory,
    query_info, read, rename_information, set_info, write,
};
use crate::random::Random;

const READ_ATTRIBUTES: u32 = 0x0000_0080;
/// To read, write, rename and remove, and to wait for it.
const ACCESS: u32 = 0x0013_0197;
const LIST_DIRECTORY: u32 = 0x0010_0081;
const FILE_OPEN: u32 = 1;
const FILE_CREATE: u32 = 2;
const FILE_OPEN_IF: u32 = 3;
const BASIC_INFORMATION: u8 = 4;
const RENAME_INFORMATION: u8 = 10;
const NETWORK_OPEN_INFORMATION: u8 = 34;
const ID_BOTH_DIRECTORY_INFORMATION: u8 = 37;
const LISTING_BYTES: u32 = 65_536;
/// Documents that a lane has in the office.
const DOCUMENTS: usize = 8;
const DOCUMENT_BYTES: usize = 64 << 10;
/// Files of an archive in one directory.
const FILES_IN_DIRECTORY: u64 = 50;

/// Where a lane works, and what with.
pub struct Place {
    /// The directory, by its path in the share.
    pub directory: String,
    /// What its own names carry.
    pub label: String,
    /// What it chooses by.
    pub seed: u64,
    /// The names in the directory that all may use.
    pub names: usize,
    /// The length of its file.
    pub span: u64,
}

/// One request or chain of an operation.
enum Move {
    Echo,
    Open { name: String, access: u32, disposition: u32, options: u32 },
    OpenAbsent(String),
    Remove(String),
    Stat(String),
    Read { offset: u64, length: u32 },
    Write { offset: u64, data: Bytes },
    Set { class: u8, information: Bytes },
    List,
    Close,
}

/// How a move left its operation.
pub enum Ended {
    /// There is more to come.
    NotYet,
    /// It is done.
    Well { bytes: u64 },
    /// The server said something else than it should.
    Badly(String),
}

pub struct Lane {
    mix: Mix,
    place: Place,
    payload: Bytes,
    random: Random,
    /// When its operation began.
    pub began: Instant,
    moves: Vec<Move>,
    at: usize,
    /// Replies that the move still waits for.
    due: u32,
    failed: Option<NtStatus>,
    bytes: u64,
    /// What the operation opened.
    file: Option<FileId>,
    /// What is open over all operations.
    held: Option<FileId>,
    /// Its own names with a number in this range exist.
    first: u64,
    next: u64,
    /// Up to where names may be made in this round.
    limit: u64,
    offset: u64,
}

impl Lane {
    pub fn new(mix: Mix, place: Place, payload: Bytes) -> Lane {
        Lane {
            mix,
            payload,
            random: Random::new(place.seed.wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(0x2545_F491)),
            place,
            began: Instant::now(),
            moves: Vec::new(),
            at: 0,
            due: 0,
            failed: None,
            bytes: 0,
            file: None,
            held: None,
            first: 0,
            next: 0,
            limit: 0,
            offset: 0,
        }
    }

    fn path(&self, name: &str) -> String {
        format!("{}\\{name}", self.place.directory)
    }

    /// Its own name of this number.
    fn own(&self, number: u64) -> String {
        if self.mix == Mix::Untar {
            return format!("{}\\file-{number}", self.archive(number));
        }
        self.path(&format!("own-{}-{number}", self.place.label))
    }

    /// The directory that the archive has a file of this number in.
    fn archive(&self, number: u64) -> String {
        self.path(&format!("tree-{}-{}", self.place.label, number / FILES_IN_DIRECTORY))
    }

    fn document(&self, number: usize) -> String {
        self.path(&format!("document-{}-{number}", self.place.label))
    }

    fn any_name(&mut self) -> String {
        let number = self.random.below(self.place.names.max(1));
        self.path(&mix::name(number))
    }

    /// Whether another operation finds what it needs.
    pub fn has_material(&self) -> bool {
        match self.mix {
            Mix::Create | Mix::Untar => self.next < self.limit,
            Mix::Unlink => self.first < self.next,
            _ => true,
        }
    }

    /// Begins an operation.
    pub fn begin(&mut self, connection: &mut Connection, tree: Tree, ticket: u64) -> Result<()> {
        self.moves.clear();
        (self.at, self.failed, self.bytes) = (0, None, 0);
        self.choose();
        self.send(true, connection, tree, ticket)
    }

    /// Lays out the operation's moves.
    fn choose(&mut self) {
        let existing = |name, access, options| Move::Open { name, access, disposition: FILE_OPEN, options };
        match self.mix {
            Mix::Echo => self.moves.push(Move::Echo),
            Mix::Create => {
                let name = self.fresh();
                self.moves.extend([
                    Move::Open { name, access: ACCESS, disposition: FILE_CREATE, options: 0x40 },
                    Move::Close,
                ]);
            }
            Mix::OpenClose => {
                let name = self.any_name();
                self.moves.extend([existing(name, ACCESS, 0x40), Move::Close]);
            }
            Mix::OpenAbsent => {
                self.next += 1;
                let name = format!("absent-{}-{}", self.place.label, self.next);
                self.moves.push(Move::OpenAbsent(self.path(&name)));
            }
            Mix::Rename => {
                let name = self.fresh();
                self.first = self.next - 1;
                let information = rename_information(&name, false);
                self.moves.push(Move::Set { class: RENAME_INFORMATION, information });
            }
            Mix::Unlink => {
                let name = self.own(self.first);
                self.first += 1;
                self.moves.extend([Move::Remove(name), Move::Close]);
            }
            Mix::Stat => {
                let name = self.any_name();
                self.moves.push(Move::Stat(name));
            }
            Mix::List => self.moves.push(Move::List),
            Mix::Read(length) => {
                let offset = self.step(length);
                self.moves.push(Move::Read { offset, length });
            }
            Mix::Write(length) => {
                let offset = self.step(length);
                let data = self.payload.clone();
                self.moves.push(Move::Write { offset, data });
            }
            Mix::Untar => self.unpack(),
            Mix::Office => self.work(),
        }
    }

    /// The next name of its own that is not there.
    fn fresh(&mut self) -> String {
        self.next += 1;
        self.own(self.next - 1)
    }

    /// The place of the next piece of this length.
    fn step(&mut self, length: u32) -> u64 {
        let offset = self.offset;
        self.offset = (offset + u64::from(length)) % self.place.span.max(1);
        offset
    }

    fn unpack(&mut self) {
        let number = self.next;
        if number.is_multiple_of(FILES_IN_DIRECTORY) {
            let (name, options) = (self.archive(number), CreateOptions::DIRECTORY_FILE.0);
            self.moves.extend([
                Move::Open { name, access: LIST_DIRECTORY, disposition: FILE_CREATE, options },
                Move::Close,
            ]);
        }
        // As source trees are: most files have a few KiB, some have 16, a few 64.
        let length = match self.random.below(20) {
            0 => 64 << 10,
            1..=5 => 16 << 10,
            _ => 1 + self.random.below(4096),
        };
        let name = self.fresh();
        self.moves.extend([
            Move::Open { name, access: ACCESS, disposition: FILE_CREATE, options: 0x40 },
            Move::Write { offset: 0, data: self.payload.slice(..length) },
            Move::Set { class: BASIC_INFORMATION, information: times() },
            Move::Close,
        ]);
    }

    fn work(&mut self) {
        let existing = |name, access, options| Move::Open { name, access, disposition: FILE_OPEN, options };
        let which = self.random.below(DOCUMENTS);
        let document = self.document(which);
        let place =
            |random: &mut Random, length: usize| (random.below(DOCUMENT_BYTES / length) * length) as u64;
        match self.random.below(100) {
            0..35 => {
                let name = self.any_name();
                self.moves.push(Move::Stat(name));
            }
            35..60 => {
                let offset = place(&mut self.random, 16 << 10);
                self.moves.extend([
                    existing(document, READ_ATTRIBUTES | 1, 0x40),
                    Move::Read { offset, length: 16 << 10 },
                    Move::Close,
                ]);
            }
            60..70 => {
                let directory = self.place.directory.clone();
                self.moves.extend([existing(directory, LIST_DIRECTORY, 1), Move::List, Move::Close]);
            }
            70..75 => self.moves.push(Move::OpenAbsent(self.path("desktop.ini"))),
            75..85 => {
                let offset = place(&mut self.random, 4096);
                self.moves.extend([
                    existing(document, ACCESS, 0x40),
                    Move::Write { offset, data: self.payload.slice(..4096) },
                    Move::Close,
                ]);
            }
            85..95 => {
                let name = self.fresh();
                self.first = self.next;
                self.moves.extend([
                    Move::Open { name, access: ACCESS, disposition: FILE_CREATE, options: 0x40 },
                    Move::Write { offset: 0, data: self.payload.slice(..DOCUMENT_BYTES) },
                    Move::Set { class: RENAME_INFORMATION, information: rename_information(&document, true) },
                    Move::Close,
                ]);
            }
            _ => self.moves.extend([
                existing(document, ACCESS, 0x40),
                Move::Set { class: BASIC_INFORMATION, information: times() },
                Move::Close,
            ]),
        }
    }

    /// Sends the move that is next; a listing begins anew only at first.
    fn send(&mut self, first: bool, connection: &mut Connection, tree: Tree, ticket: u64) -> Result<()> {
        let file = self.file.or(self.held).unwrap_or_default();
        self.due = 1;
        let request = match &self.moves[self.at] {
            Move::Echo => echo(),
            Move::Open { name, access, disposition, options } => {
                Request::Create(create(name, *access, *disposition, *options))
            }
            Move::OpenAbsent(name) => Request::Create(create(name, READ_ATTRIBUTES, FILE_OPEN, 0)),
            Move::Remove(name) => delete_on_close(name),
            Move::Stat(name) => {
                self.due = 3;
                let chain = vec![
                    Request::Create(create(name, READ_ATTRIBUTES, FILE_OPEN, 0)),
                    query_info(FileId::RELATED, NETWORK_OPEN_INFORMATION),
                    close(FileId::RELATED),
                ];
                return connection.submit_chain(tree, chain, ticket);
            }
            Move::Read { offset, length } => read(file, *offset, *length),
            Move::Write { offset, data } => write(file, *offset, data.clone()),
            Move::Set { class, information } => set_info(file, *class, information.clone()),
            Move::List => query_directory(file, ID_BOTH_DIRECTORY_INFORMATION, LISTING_BYTES, first),
            Move::Close => close(file),
        };
        connection.submit(tree, request, ticket)
    }

    /// Takes a reply to its move, and sends what comes next.
    pub fn advance(
        &mut self,
        reply: &Reply,
        connection: &mut Connection,
        tree: Tree,
        ticket: u64,
    ) -> Result<Ended> {
        self.due = self.due.saturating_sub(1);
        let status = reply.header.status;
        let message = &reply.message;
        let malformed = |e| Trouble::Broken(format!("{:?} response: {e}", reply.header.command));
        match (&self.moves[self.at], status) {
            (Move::Open { .. } | Move::Remove(_), NtStatus::SUCCESS) => {
                self.file = Some(CreateResponse::parse(message).map_err(malformed)?.file_id);
            }
            (Move::OpenAbsent(_), NtStatus::SUCCESS) => {
                self.file = Some(CreateResponse::parse(message).map_err(malformed)?.file_id);
                self.failed.get_or_insert(status);
            }
            (Move::OpenAbsent(_), NtStatus::OBJECT_NAME_NOT_FOUND) => {}
            (Move::List, NtStatus::SUCCESS) => {
                self.bytes += message.len() as u64;
                self.send(false, connection, tree, ticket)?;
                return Ok(Ended::NotYet);
            }
            (Move::List, NtStatus::NO_MORE_FILES) => {}
            (Move::Read { length, .. }, NtStatus::SUCCESS) => {
                let Response::Read(answer) = reply.response()? else {
                    return Err(Trouble::Broken("READ was answered with another command".to_owned()));
                };
                if answer.data.len() != *length as usize {
                    return Err(Trouble::Broken(format!(
                        "a READ of {length} gave {} bytes",
                        answer.data.len()
                    )));
                }
                self.bytes += answer.data.len() as u64;
            }
            (Move::Write { data, .. }, NtStatus::SUCCESS) => self.bytes += data.len() as u64,
            (Move::Close, NtStatus::SUCCESS) => self.file = None,
            (_, NtStatus::SUCCESS) => {}
            _ => {
                self.failed.get_or_insert(status);
            }
        }
        if self.due > 0 {
            return Ok(Ended::NotYet);
        }
        if self.failed.is_some() {
            let closing = matches!(self.moves[self.at], Move::Close);
            if self.file.is_some() && !closing {
                self.moves.truncate(self.at + 1);
                self.moves.push(Move::Close);
            } else {
                self.moves.truncate(self.at + 1);
                self.file = None;
            }
        }
        self.at += 1;
        if self.at < self.moves.len() {
            self.send(true, connection, tree, ticket)?;
            return Ok(Ended::NotYet);
        }
        Ok(match self.failed {
            Some(status) => Ended::Badly(status.to_string()),
            None => Ended::Well { bytes: self.bytes },
        })
    }

    /// Files of its own that it begins with.
    pub fn furniture(&self) -> Vec<Job> {
        if self.mix != Mix::Office {
            return Vec::new();
        }
        let content = self.payload.slice(..DOCUMENT_BYTES);
        (0..DOCUMENTS).map(|number| Job::Fill(self.document(number), content.clone())).collect()
    }

    /// Opens what is open over all operations.
    pub async fn open_held(&mut self, connection: &mut Connection, tree: Tree) -> Result<()> {
        let request = match self.mix {
            Mix::Rename => create(&self.fresh(), ACCESS, FILE_OPEN_IF, 0x40),
            Mix::Read(_) | Mix::Write(_) => create(&self.fresh(), ACCESS, FILE_OPEN_IF, 0x40),
            Mix::List => create(&self.place.directory, LIST_DIRECTORY, FILE_OPEN, 1),
            _ => return Ok(()),
        };
        let Response::Create(answer) =
            connection.exchange(tree, Request::Create(request)).await?.response()?
        else {
            return Err(Trouble::Broken("CREATE was answered with another command".to_owned()));
        };
        self.held = Some(answer.file_id);
        if let Mix::Read(size) | Mix::Write(size) = self.mix {
            for offset in (0..self.place.span).step_by(size as usize) {
                let request = write(answer.file_id, offset, self.payload.clone());
                connection.exchange(tree, request).await?.response()?;
            }
        }
        Ok(())
    }

    /// Closes it.
    pub async fn close_held(&mut self, connection: &mut Connection, tree: Tree) -> Result<()> {
        match self.held.take() {
            Some(file) => connection.exchange(tree, close(file)).await?.response().map(drop),
            None => Ok(()),
        }
    }

    /// What is to be done, step by step, before so many operations.
    pub fn restock(&mut self, operations: u64) -> Vec<Vec<Job>> {
        match self.mix {
            Mix::Unlink => {
                let until = self.first + operations;
                let jobs = (self.next..until).map(|number| Job::Make(self.own(number))).collect();
                self.next = self.next.max(until);
                vec![jobs]
            }
            Mix::Create | Mix::Untar => {
                let steps = self.remains();
                if self.mix == Mix::Untar {
                    self.next = self.next.next_multiple_of(FILES_IN_DIRECTORY);
                }
                self.first = self.next;
                self.limit = self.next + operations;
                steps
            }
            _ => Vec::new(),
        }
    }

    /// What removes all that is its own, step by step.
    pub fn remains(&mut self) -> Vec<Vec<Job>> {
        let mut files: Vec<Job> = match self.mix {
            Mix::OpenAbsent => Vec::new(),
            _ => (self.first..self.next).map(|number| Job::Remove(self.own(number))).collect(),
        };
        if self.mix == Mix::Office {
            files.extend((0..DOCUMENTS).map(|number| Job::Remove(self.document(number))));
        }
        let mut steps = vec![files];
        if self.mix == Mix::Untar && self.first < self.next {
            let directories = (self.first..self.next).step_by(FILES_IN_DIRECTORY as usize);
            steps.push(directories.map(|number| Job::RemoveDirectory(self.archive(number))).collect());
        }
        steps
    }
}

/// FILE_BASIC_INFORMATION (MS-FSCC 2.4.7) that sets the time of the last write and leaves the rest.
fn times() -> Bytes {
    let mut information = [0; 40];
    // The first second of 2024.
    information[16..24].copy_from_slice(&133_485_408_000_000_000u64.to_le_bytes());
    Bytes::copy_from_slice(&information)
}
