//! One machine of the lab: a network namespace that is held by a file descriptor and has no name anywhere.
//!
//! Whatever is to happen inside runs in a thread that has entered it: [`Namespace::run`] for a closure,
//! [`Namespace::start`] for a process. Sockets stay in the namespace in which they were made, so they may leave the
//! closure. When the last holder is gone, the kernel removes the namespace with its interfaces, routes and rules.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::fd::AsRawFd as _;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{self, Sender};
use std::thread;

use nix::sched::{CloneFlags, setns, unshare};

use super::{Result, failed};
use crate::Error;

/// A network namespace.
#[derive(Debug, Clone)]
pub struct Namespace {
    name: String,
    file: Arc<File>,
}

/// A process inside a namespace. It is killed when this is dropped, and also when the lab's own process dies.
#[derive(Debug)]
pub struct Process {
    child: Child,
    /// The kernel kills the child when the thread that started it ends, so that thread waits until this is dropped.
    _starter: Sender<()>,
}

impl Namespace {
    /// Makes a namespace with nothing in it but a loopback interface. The name is for messages only.
    ///
    /// # Errors
    /// When the kernel refuses, as it does without root.
    pub fn new(name: &str) -> Result<Self> {
        let make = || {
            unshare(CloneFlags::CLONE_NEWNET)?;
            File::open("/proc/thread-self/ns/net")
        };
        let made = thread::scope(|scope| scope.spawn(make).join()).expect("making a namespace does not panic");
        let namespace = Self { name: name.to_owned(), file: Arc::new(made.map_err(failed("a network namespace"))?) };
        for call in ["iptables", "ip6tables", "arptables"] {
            namespace.sysctl_if_there(&format!("net/bridge/bridge-nf-call-{call}"), "0")?;
        }
        // An address must be usable at once.
        namespace.sysctl_if_there("net/ipv6/conf/default/accept_dad", "0")?;
        namespace.ip("link set lo up\n")?;
        Ok(namespace)
    }

    /// What it is called in messages.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs a closure inside, in a thread of its own, and waits for it.
    pub fn run<T: Send>(&self, task: impl FnOnce() -> T + Send) -> T {
        let enter = || {
            setns(&*self.file, CloneFlags::CLONE_NEWNET).expect("who made a namespace can enter it");
            task()
        };
        thread::scope(|scope| match scope.spawn(enter).join() {
            Ok(value) => value,
            Err(panic) => std::panic::resume_unwind(panic),
        })
    }

    /// Commands for `ip`, one a line.
    ///
    /// # Errors
    /// What `ip` says, with the line.
    pub fn ip(&self, batch: &str) -> Result<()> {
        self.tool("ip", &["-batch", "-"], batch).map(drop)
    }

    /// Rules for `nft`.
    ///
    /// # Errors
    /// What `nft` says.
    pub fn nft(&self, rules: &str) -> Result<()> {
        self.tool("nft", &["-f", "-"], rules).map(drop)
    }

    /// Runs a tool with text on its standard input, and returns what it prints.
    ///
    /// # Errors
    /// When it cannot be started or fails, with what it says.
    pub fn tool(&self, program: &str, arguments: &[&str], input: &str) -> Result<String> {
        let at = format!("{program} {} in {}", arguments.join(" "), self.name);
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let call = || {
            let mut child = command.spawn()?;
            // A tool that ended early says why on its own.
            _ = child.stdin.take().map(|mut pipe| pipe.write_all(input.as_bytes()));
            child.wait_with_output()
        };
        let output = self.run(call).map_err(failed(&at))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            return Err(Error::Lab(format!("{at}: {said}\n{input}")));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Sets a variable below `/proc/sys`.
    ///
    /// # Errors
    /// When there is none, or the value is none for it.
    pub fn sysctl(&self, path: &str, value: &str) -> Result<()> {
        let file = format!("/proc/sys/{path}");
        self.run(|| fs::write(&file, value)).map_err(failed(format!("{file} in {}", self.name)))
    }

    /// As [`Namespace::sysctl`], for what kernels may not have.
    fn sysctl_if_there(&self, path: &str, value: &str) -> Result<()> {
        let there = self.run(|| fs::exists(format!("/proc/sys/{path}")).unwrap_or(false));
        if there { self.sysctl(path, value) } else { Ok(()) }
    }

    /// A cable from an interface here to one in another namespace.
    ///
    /// # Errors
    /// When a name is taken.
    pub fn cable(&self, name: &str, other: &Self, other_name: &str) -> Result<()> {
        let (process, fd) = (std::process::id(), other.file.as_raw_fd());
        self.ip(&format!("link add {name} type veth peer name {other_name} netns /proc/{process}/fd/{fd}\n"))
    }

    /// Starts a process inside, with the arguments and the environment of a command, and somewhere for its output and
    /// its errors to go.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(&self, command: &Command, output: Stdio, errors: Stdio) -> Result<Process> {
        let program = command.get_program().to_owned();
        let mut guarded = Command::new("setpriv");
        guarded.args(["--pdeathsig", "KILL", "--"]).arg(&program).args(command.get_args());
        for (key, value) in command.get_envs() {
            match value {
                Some(value) => guarded.env(key, value),
                None => guarded.env_remove(key),
            };
        }
        guarded.stdin(Stdio::null()).stdout(output).stderr(errors);
        let (starter, ended) = mpsc::channel::<()>();
        let (started, child) = mpsc::channel();
        let file = Arc::clone(&self.file);
        thread::spawn(move || {
            let spawned = setns(&*file, CloneFlags::CLONE_NEWNET).map_err(Into::into).and_then(|()| guarded.spawn());
            _ = started.send(spawned);
            _ = ended.recv();
        });
        let spawned = child.recv().map_err(|_| Error::Lab("the thread of a process ended".to_owned()))?;
        let child = spawned.map_err(failed(format!("{} in {}", program.display(), self.name)))?;
        Ok(Process { child, _starter: starter })
    }
}

impl Process {
    /// Its output, once, if that was piped.
    pub fn output(&mut self) -> Option<ChildStdout> {
        self.child.stdout.take()
    }

    /// Its number in the system.
    #[must_use]
    pub fn number(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended on its own.
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn namespaces_are_apart_until_a_cable_connects_them() {
        let Ok(one) = Namespace::new("one") else { return println!("unsupported: no root") };
        let two = Namespace::new("two").unwrap();
        one.cable("eth0", &two, "eth0").unwrap();
        one.ip("addr add 44.128.0.1/24 dev eth0\nlink set eth0 up\n").unwrap();
        two.ip("addr add 44.128.0.2/24 dev eth0\nlink set eth0 up\n").unwrap();
        let listener = one.run(|| TcpListener::bind("0.0.0.0:80")).unwrap();
        assert!(two.run(|| TcpStream::connect("127.0.0.1:80")).is_err());
        two.run(|| TcpStream::connect("44.128.0.1:80")).unwrap();
        drop(listener);
        let error = one.ip("link set nothing up\n").unwrap_err().to_string();
        assert!(error.contains("in one") && error.contains("nothing"), "{error}");
    }

    #[test]
    fn a_process_dies_with_its_handle() {
        let Ok(host) = Namespace::new("host") else { return println!("unsupported: no root") };
        let mut command = Command::new("sleep");
        command.arg("1000");
        let mut process = host.start(&command, Stdio::null(), Stdio::null()).unwrap();
        assert!(process.ended().is_none());
        let id = process.child.id();
        drop(process);
        assert!(!fs::exists(format!("/proc/{id}")).unwrap());
    }
}
