//! A program run to its end, with limits on its time and on what it may say.

use std::{
    fs::File,
    io::{self, Read},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::unix::pipe,
    time,
};

use super::{Exit, Init, Launch, Output, SpawnError};

/// How much is read from a pipe at once.
const CHUNK: usize = 8 * 1024;

/// More than this a pipe does not hold.
const PIPE_CAPACITY: usize = 1024 * 1024;

/// What a program said and how it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finished {
    /// How it ended.
    pub exit: Exit,
    /// The beginning of its standard output, up to the cap.
    pub stdout: Vec<u8>,
    /// The beginning of its standard error, up to the cap.
    pub stderr: Vec<u8>,
}

/// Why a program was not run to its end.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// It was not started.
    #[error(transparent)]
    Spawn(#[from] SpawnError),
    /// It took too long and was killed, with its group.
    #[error("{program} did not end within {limit:?} and was killed")]
    Limit {
        /// As given.
        program: String,
        /// The limit that passed.
        limit: Duration,
    },
    /// The init went away meanwhile, and the program with it.
    #[error("the host ended while the program ran")]
    Gone,
}

impl Init {
    /// Runs a program to its end: feeds `stdin` to it (nothing when empty) and keeps the first `cap` bytes of each of
    /// its two outputs; what is beyond is read and dropped, so the program is not held up. `input` and `output` of the
    /// launch are of no account. What its children write after the program's end is not waited for.
    ///
    /// # Errors
    /// When it does not start, or does not end within `limit`.
    ///
    /// # Cancellation safety
    /// Dropping the future kills the program and its group.
    pub async fn run(&self, launch: Launch, stdin: Vec<u8>, limit: Duration, cap: usize) -> Result<Finished, RunError> {
        let program = launch.program.to_string_lossy().into_owned();
        let run = self.run_to_the_end(launch, stdin, cap);
        time::timeout(limit, run).await.unwrap_or(Err(RunError::Limit { program, limit }))
    }

    async fn run_to_the_end(&self, launch: Launch, stdin: Vec<u8>, cap: usize) -> Result<Finished, RunError> {
        let launch = Launch { input: !stdin.is_empty(), output: Output::Separate, ..launch };
        let (child, kill) = self.spawn_guarded(launch).await?;
        let (mut stdout, mut stderr) = (Capture::new(child.output, cap), Capture::new(child.error, cap));
        let mut exit = child.exit;
        let exchange = async { tokio::join!(feed(child.input, &stdin), stdout.read(), stderr.read()) };
        let exit = tokio::select! {
            exit = &mut exit => exit,
            ((), (), ()) = exchange => exit.await,
        };
        let exit = exit.map_err(|_| RunError::Gone)?;
        kill.disarm();
        Ok(Finished { exit, stdout: stdout.finish(), stderr: stderr.finish() })
    }
}

/// Writes all of it and closes the pipe. That the program does not care to read is no error.
async fn feed(pipe: Option<pipe::Sender>, bytes: &[u8]) {
    if let Some(mut pipe) = pipe {
        let _ = pipe.write_all(bytes).await;
    }
}

/// The beginning of what comes through a pipe.
#[derive(Debug)]
pub struct Capture {
    pipe: Option<pipe::Receiver>,
    kept: Vec<u8>,
    cap: usize,
}

impl Capture {
    /// Keeps the first `cap` bytes of what comes; what is beyond is read and dropped, so that nobody is held up.
    #[must_use]
    pub fn new(pipe: Option<pipe::Receiver>, cap: usize) -> Self {
        Self { pipe, kept: Vec::new(), cap }
    }

    /// Reads until all writers are gone.
    ///
    /// # Cancellation safety
    /// What was read so far is kept.
    pub async fn read(&mut self) {
        let mut chunk = Vec::with_capacity(CHUNK);
        while let Some(pipe) = &mut self.pipe {
            match pipe.read_buf(&mut chunk).await {
                Ok(0) | Err(_) => self.pipe = None,
                Ok(_) => self.keep(&chunk),
            }
            chunk.clear();
        }
    }

    /// What was kept, and what is in the pipe now. Somebody outside the program's group may hold it open: no waiting.
    #[must_use]
    pub fn finish(mut self) -> Vec<u8> {
        // Read without the runtime, which may not know yet that there is something.
        let rest = self.pipe.take().map(pipe::Receiver::into_nonblocking_fd);
        if let Some(Ok(rest)) = rest {
            let _ = self.read_rest(File::from(rest));
        }
        self.kept
    }

    fn read_rest(&mut self, mut rest: File) -> io::Result<()> {
        let mut chunk = [0; CHUNK];
        for _ in 0..PIPE_CAPACITY / CHUNK {
            match rest.read(&mut chunk)? {
                0 => break,
                count => self.keep(chunk.get(..count).unwrap_or_default()),
            }
        }
        Ok(())
    }

    fn keep(&mut self, bytes: &[u8]) {
        let room = self.cap.saturating_sub(self.kept.len());
        self.kept.extend(bytes.iter().take(room));
    }
}
