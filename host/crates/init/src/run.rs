//! Program run to its end, with limits on its time and its output.

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

use super::{Exit, Init, ProcessSpec, SpawnError, StdioMode};

/// Size of one read from a pipe.
const CHUNK_BYTES: usize = 8 * 1024;

/// Maximum capacity of a pipe.
const MAX_PIPE_BYTES: usize = 1024 * 1024;

/// Output and exit of a program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProgramOutput {
    /// Exit status.
    pub exit: Exit,
    /// Standard output, up to the cap.
    pub stdout: Vec<u8>,
    /// Standard error, up to the cap.
    pub stderr: Vec<u8>,
}

/// Error of running a program to its end.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The program was not started.
    #[error(transparent)]
    Spawn(#[from] SpawnError),
    /// The program exceeded its time limit and was killed, with its group.
    #[error("{program} did not exit within {} s and was killed", limit.as_secs_f64())]
    Limit {
        /// As given by the caller.
        program: String,
        /// Time limit.
        limit: Duration,
    },
    /// The init thread ended, and the program was killed.
    #[error("host shut down while the program was running")]
    Gone,
}

impl Init {
    /// Runs a program to its end: writes `stdin` to it, if not empty, and keeps the first `cap` bytes of each of its
    /// two outputs. The rest is read and dropped, so that the program is not blocked. `input` and `output` of `launch`
    /// are ignored. Output that children write after the program's exit is not waited for.
    ///
    /// # Errors
    /// If the program does not start, or does not exit within `limit`.
    ///
    /// # Cancellation safety
    /// Dropping the future kills the program and its group.
    pub async fn run(
        &self,
        launch: ProcessSpec,
        stdin: Vec<u8>,
        limit: Duration,
        cap: usize,
    ) -> Result<ProgramOutput, RunError> {
        let program = launch.program.to_string_lossy().into_owned();
        let run = self.run_to_end(launch, stdin, cap);
        time::timeout(limit, run).await.unwrap_or(Err(RunError::Limit { program, limit }))
    }

    async fn run_to_end(&self, launch: ProcessSpec, stdin: Vec<u8>, cap: usize) -> Result<ProgramOutput, RunError> {
        let launch = ProcessSpec { input: !stdin.is_empty(), output: StdioMode::Separate, ..launch };
        let (child, kill) = self.spawn_guarded(launch).await?;
        let (mut stdout, mut stderr) = (Capture::new(child.output, cap), Capture::new(child.error, cap));
        let mut exit = child.exit;
        let exchange = async { tokio::join!(write_stdin(child.input, &stdin), stdout.read(), stderr.read()) };
        let exit = tokio::select! {
            exit = &mut exit => exit,
            ((), (), ()) = exchange => exit.await,
        };
        let exit = exit.map_err(|_| RunError::Gone)?;
        kill.disarm();
        Ok(ProgramOutput { exit, stdout: stdout.finish(), stderr: stderr.finish() })
    }
}

/// Writes all bytes and closes the pipe. A program that does not read them is not an error.
async fn write_stdin(pipe: Option<pipe::Sender>, bytes: &[u8]) {
    if let Some(mut pipe) = pipe {
        let _ = pipe.write_all(bytes).await;
    }
}

/// First bytes of the data from a pipe.
#[derive(Debug)]
pub struct Capture {
    pipe: Option<pipe::Receiver>,
    kept: Vec<u8>,
    cap: usize,
}

impl Capture {
    /// Keeps the first `cap` bytes. The rest is read and dropped, so that writers are not blocked.
    #[must_use]
    pub fn new(pipe: Option<pipe::Receiver>, cap: usize) -> Self {
        Self { pipe, kept: Vec::new(), cap }
    }

    /// Reads until all writers have closed the pipe.
    ///
    /// # Cancellation safety
    /// Bytes read so far are kept.
    pub async fn read(&mut self) {
        let mut chunk = Vec::with_capacity(CHUNK_BYTES);
        while let Some(pipe) = &mut self.pipe {
            match pipe.read_buf(&mut chunk).await {
                Ok(0) | Err(_) => self.pipe = None,
                Ok(_) => self.keep(&chunk),
            }
            chunk.clear();
        }
    }

    /// Returns the kept bytes and those in the pipe now. Does not wait, because a process outside the program's group
    /// may hold the pipe open.
    #[must_use]
    pub fn finish(mut self) -> Vec<u8> {
        // Read without the runtime, which may not have noticed the data yet.
        let rest = self.pipe.take().map(pipe::Receiver::into_nonblocking_fd);
        if let Some(Ok(rest)) = rest {
            let _ = self.read_rest(File::from(rest));
        }
        self.kept
    }

    fn read_rest(&mut self, mut rest: File) -> io::Result<()> {
        let mut chunk = [0; CHUNK_BYTES];
        for _ in 0..MAX_PIPE_BYTES / CHUNK_BYTES {
            match rest.read(&mut chunk)? {
                0 => break,
                count => self.keep(chunk.get(..count).unwrap_or_default()),
            }
        }
        Ok(())
    }

    fn keep(&mut self, bytes: &[u8]) {
        let left = self.cap.saturating_sub(self.kept.len());
        self.kept.extend(bytes.iter().take(left));
    }
}
