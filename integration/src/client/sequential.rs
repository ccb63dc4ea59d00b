//! One connection, one session, one tree, one request after the other; and raw frames.

use std::net::SocketAddr;

use bytes::{Bytes, BytesMut};
use shoal_protocol::NtStatus;
use shoal_protocol::smb2::header::Header;
use shoal_protocol::smb2::{CreateRequest, CreateResponse, FileId, Request, Response};

use super::{Connection, Protection, Result, Tree, Trouble, close, names_of, query_directory, set_info};

/// One connection with, once logged in, one signed session and one tree.
pub struct Client {
    connection: Connection,
    tree: Tree,
}

impl Client {
    /// Connects and negotiates 3.1.1 with AES-GMAC or AES-CMAC signing.
    pub async fn connect(address: SocketAddr) -> Result<Client> {
        Ok(Client { connection: Connection::connect(address).await?, tree: Tree::default() })
    }

    /// Logs in and connects to `share`.
    pub async fn login(&mut self, user: &str, password: &str, share: &str) -> Result<()> {
        let session = self.connection.login(user, password, Protection::Signed).await?;
        self.tree = self.connection.tree_connect(session, share).await?;
        Ok(())
    }

    /// One request as a frame's payload, signed once there is a key. It takes the next message id.
    pub fn request(&mut self, request: &Request) -> BytesMut {
        self.connection.forge(self.tree, request)
    }

    /// Signs a payload of one message in place, if there is a key: sets the flag and the signature.
    pub fn sign(&self, message: &mut [u8]) {
        self.connection.sign(self.tree, message);
    }

    /// Sends a payload in its frame.
    pub async fn send(&mut self, payload: &[u8]) -> Result<()> {
        self.connection.send(payload).await
    }

    /// Receives the next message (the first of its frame).
    pub async fn receive(&mut self) -> Result<(Header, Bytes)> {
        self.connection.receive().await
    }

    /// Sends a request and waits for its final answer; an answer that is none is `Trouble::Status`.
    pub async fn call(&mut self, request: &Request) -> Result<(Header, Response)> {
        let reply = self.connection.exchange(self.tree, request.clone()).await?;
        let response = reply.response()?;
        Ok((reply.header, response))
    }

    /// CREATE.
    pub async fn create(&mut self, request: CreateRequest) -> Result<CreateResponse> {
        match self.call(&Request::Create(request)).await? {
            (_, Response::Create(answer)) => Ok(answer),
            (header, _) => Err(Trouble::Broken(format!("CREATE answered with {:?}", header.command))),
        }
    }

    /// CLOSE.
    pub async fn close(&mut self, file_id: FileId) -> Result<()> {
        self.call(&close(file_id)).await.map(drop)
    }

    /// SET_INFO of a file information class.
    pub async fn set_info(&mut self, file_id: FileId, class: u8, buffer: Bytes) -> Result<()> {
        self.call(&set_info(file_id, class, buffer)).await.map(drop)
    }

    /// Every name in an open directory but `.` and `..`.
    pub async fn names(&mut self, directory: FileId) -> Result<Vec<String>> {
        let mut names = Vec::new();
        loop {
            match self.call(&query_directory(directory, 12, 65_536, false)).await {
                Ok((_, Response::QueryDirectory(answer))) => names_of(&answer.buffer, &mut names)?,
                Ok(_) => {
                    return Err(Trouble::Broken("QUERY_DIRECTORY answered with another command".to_owned()));
                }
                Err(Trouble::Status(NtStatus::NO_MORE_FILES)) => return Ok(names),
                Err(trouble) => return Err(trouble),
            }
        }
    }
}
