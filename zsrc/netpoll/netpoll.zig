//! The network poller: what a backend promises, and which one this system has.
//!
//! A backend watches handles (`os.Handle`) and tells when an attempt on one may succeed. It knows
//! no goroutine. `Contract` says function by function what it promises; a backend that lacks one,
//! or has it with another type, stops the build. Descriptors, which know the callers that wait, are
//! built on it once for all lanes (desc.zig, poller.zig).
//!
//! **Edges.** A backend tells of a *change*: of each direction once, when it becomes possible to go
//! on, and also once after `add` if it is possible already. It may tell too often, never too
//! seldom: after an attempt that the system refused with "would block", the next change is told.
//! What the attempt finds is what counts, since the state may be over by then. Levels were
//! rejected: one that no goroutine takes is told in each round, or costs a system call to switch
//! off.
//!
//! **Threads.** One M at a time waits. Another may look (`wait` with time-out 0) meanwhile. All
//! else may be called from any thread at any moment between `init` and `deinit`.
//!
//! **Readiness, also on Windows.** A poller there will use readiness, by AFD polls: IOCTL_AFD_POLL
//! on a helper handle of \Device\Afd. The answers come by a completion port. wepoll, mio and trio
//! do so; libuv does for uv_poll. Go's poller and libuv's streams use completions instead: the
//! buffer goes to the system with the request. That was rejected:
//!
//!  - A buffer belongs to the system until the completion comes, also after a time-out or a close.
//!    Here it is on a goroutine's stack, or is a Python object that its owner may free or resize.
//!    Go waits for the cancellation of the request; a Python goroutine that is cancelled would have
//!    to, with the object locked.
//!  - A socket joins one completion port, for ever. Sockets come from Python's socket module, go
//!    back by detach(), and may be in asyncio's port already. An AFD poll leaves the socket alone.
//!  - golibx.h and select() ask whether a file is ready. Completions can't answer that.
//!  - Both lanes, and all tests of them, stay as they are: one contract instead of two.
//!
//! The price is two system calls more for each receive that waits, and an interface that Microsoft
//! does not document. Since Windows 10 build 20348 there is one that it does, with edges:
//! ProcessSocketNotifications. It can take the place of AFD polls where it exists.
//!
//! An AFD poll tells once, of a level. The backend makes edges of that as mio does: it asks for a
//! direction again when an attempt was refused. So it needs to be told of that: it will have one
//! function more, `arm`, which a descriptor calls when a wait begins (Desc.begin). What else is
//! known of AFD is in docs/internals/poller.md.
const std = @import("std");
const builtin = @import("builtin");
const os = @import("../os/os.zig");
const Handle = os.Handle;

const epoll = @import("epoll.zig");
const none = @import("none.zig");

const backend = switch (builtin.os.tag) {
    .linux => epoll,
    else => none,
};

pub const name = backend.name;
pub const Backend = backend.Backend;

/// The most that one `wait` tells of.
pub const batch = 256;

/// The tag that tells of a signal: see `watchSignals`. The one above it is the backend's own.
pub const signal_tag = std.math.maxInt(u64) - 1;

pub const Directions = packed struct {
    read: bool = false,
    write: bool = false,

    pub const both: Directions = .{ .read = true, .write = true };
};

/// What a backend tells of one handle.
pub const Ready = struct {
    tag: u64,
    read: bool,
    write: bool,
    /// Both directions are over: attempts never block again.
    hangup: bool,
    /// The peer will send no more.
    eof: bool,
    /// There is out-of-band data, before which a read stops.
    urgent: bool = false,
};

pub const WaitResult = enum { events, timeout, interrupted };

pub const InitError = error{ OutOfMemory, SystemLimit };

pub const AddError = error{
    OutOfMemory,
    /// The system watches no more.
    SystemLimit,
    /// It is of a kind that never blocks, such as a file, or that the system can't watch.
    NotPollable,
    /// It is not open, or is the backend's own.
    BadDescriptor,
    /// It is watched already.
    InUse,
    /// There is no poller for this system.
    Unsupported,
};

/// The functions of a backend. "Any" means any thread, with any lock held or none; each function
/// returns without waiting for another thread, but for `wait`.
fn Contract(comptime B: type) type {
    return struct {
        /// Nothing is watched.
        init: fn () InitError!B,
        /// When no thread is inside another function any more. Handles that are watched are left as
        /// they are. In the child of a fork it closes what the child has inherited, and leaves the
        /// parent's alone.
        deinit: fn (*B) void,
        /// Any. Watches the directions of a handle, under a tag that is given back with each
        /// event. What has been told of under the tag by the time that `add` returns may be in the
        /// hands of an M that waits: the caller makes what the tag names before it adds.
        add: fn (*B, Handle, u64, Directions) AddError!void,
        /// Any. Watches a handle no more; nothing if it is not watched. The caller has not closed
        /// it yet. It wakes no waiter. An event that was fetched before may still be given back
        /// after: the code that delivers it tells by the tag that it is stale.
        remove: fn (*B, Handle) void,
        /// Any. As `add`, for a handle that is watched under this tag: tells again of what is
        /// possible. False if it is not watched: its file was closed without a word, and the number
        /// may be another file's.
        rearm: fn (*B, Handle, u64, Directions) bool,
        /// One M at a time for a time-out that is not 0, one for 0; both at once are allowed. With
        /// a time-out of 0 it returns at once. With null it waits for ever. No lock of the lane may
        /// be held for longer than that. It fills `out`, which has room for `batch`, and `len`.
        /// `events` also means that it was woken, with or without events. `interrupted` means that
        /// a signal handler ran. It never returns later than the time-out by more than the system
        /// needs, and not earlier, but for a wake-up.
        wait: fn (*B, []Ready, *usize, ?u64) WaitResult,
        /// Any. The M that waits returns, or the next that would wait with a time-out that is not 0
        /// does, at once. Wake-ups are not counted: several before a return are one. The M that
        /// returns sees what the caller wrote before. It never ends a look with time-out 0.
        wake: fn (*B) void,
        /// Any. Whether a look would find something now. It takes nothing.
        pending: fn (*B) bool,
        /// Any. Ends the process with a message if what the backend works with is gone, since no
        /// goroutine that waits would ever be woken then. Called for events that make no sense.
        verify: fn (*const B) void,
        /// With the lane's lock. Watches the handle that becomes readable when a signal has come,
        /// and tells of it under `signal_tag` as long as it is readable. The caller keeps it open.
        /// `signals` is that handle, or none.
        watchSignals: fn (*B, Handle) AddError!void,
    };
}

fn keepsContract(comptime module: type) void {
    const B = module.Backend;
    const C = Contract(B);
    for (std.meta.fieldNames(C)) |each| {
        const what = "poller backend " ++ module.name ++ ": " ++ each;
        if (!@hasDecl(B, each)) @compileError(what ++ " is missing");
        const is = @TypeOf(@field(B, each));
        const wanted = @FieldType(C, each);
        if (is != wanted)
            @compileError(what ++ " is " ++ @typeName(is) ++ ", not " ++ @typeName(wanted));
    }
    if (@FieldType(B, "signals") != Handle) @compileError("signals is no handle");
}

comptime {
    for (.{ epoll, none }) |each| keepsContract(each);
}
