//! M: an OS thread that runs goroutines.
//!
//! Its own stack, g0 in Go's words, runs the scheduler loop when no goroutine is at hand. After a
//! switch a goroutine may find itself on another M, and compilers keep the address of a
//! thread-local across calls (ziglang/zig#21739); so `current` and `setCurrent` are never inlined,
//! and no code keeps an M in a local across a switch.
const std = @import("std");
const os = @import("../os/os.zig");
const tunables = &@import("../core/tunables.zig").current;
const G = @import("g.zig").G;

pub const Duty = enum(u8) {
    none,
    /// Run the lane, if no other M does.
    run,
    /// Take the P from an M, if its goroutine still blocks.
    retake,
    /// Take the P from whichever M has it, if its goroutine blocks: see taking.zig, `reserve`.
    reserve,
    /// Take the P from an M, if its goroutine still runs on and on without a place to be preempted.
    hand_off,
    /// Have the host put a preemption request in the way of a goroutine.
    preempt,
    /// End the thread.
    quit,
};

/// What a duty is about, as sysmon saw it.
pub const About = struct {
    /// The id of the M that runs the goroutine.
    m: u32 = 0,
    /// The lane's tick then.
    tick: u64 = 0,
    /// Since when it has run or blocked, monotonic ns.
    since: u64 = 0,
};

pub const M = struct {
    id: u32 = 0,
    /// Saved stack pointer of g0 while a goroutine runs.
    sp: usize = 0,
    /// The goroutine on this M, kept while it is in a syscall.
    curg: ?*G = null,
    /// The P was taken while curg was in a blocking call. Written under the lane's lock, read by
    /// sysmon at any time.
    lost: std.atomic.Value(bool) = .init(false),
    /// The only goroutine that it runs, if that is locked to it; sysmon's thread and the main one
    /// read it.
    locked_g: ?*G = null,
    /// It has to run that next: the P is this M's, or about to be.
    handed: bool = false,
    /// Its locked goroutine has ended: so does the thread.
    ending: bool = false,
    /// Its thread is about to end. Under the lane's m_lock.
    dismissed: bool = false,
    /// The M that gets the P when this one, which its goroutine keeps, gets to g0.
    heir: ?*M = null,
    /// The M that takes the host's lock from this one: see succession.zig.
    successor: ?*M = null,
    /// How many Ms it is the successor of, or was a moment ago. It does not end before they have
    /// woken it.
    due: std.atomic.Value(u32) = .init(0),
    /// What the host calls the running context (a thread state), for sysmon's look at whether it
    /// blocks. Written by this M.
    state: std.atomic.Value(?*anyopaque) = .init(null),
    /// The host's context for g0.
    base: ?*anyopaque = null,
    /// The thread that entered the runtime.
    main: bool = false,
    /// The run it belongs to.
    generation: u32 = 0,
    /// That run has ended, and given up the goroutine that it carries: see ending.zig.
    stray: bool = false,
    /// That goroutine, when it has ended too.
    left: ?*G = null,
    note: os.Note = .{},
    /// It has passed the P to a thread that waits with its goroutine, and may get it back soon.
    passed_on: bool = false,
    spinning: os.Rest = .{},
    /// How long it last waited for the host's lock, ns; 0 where that is not wanted. The host's.
    lock_waited_ns: u64 = 0,
    /// Written by the thread that wakes an idle M, before its note.
    duty: Duty = .none,
    about: About = .{},
    thread: ?os.Thread = null,
    /// The thread that started this one has stored `thread`.
    known: std.atomic.Value(bool) = .init(false),
    fault: os.FaultStack = .{},
    /// sysmon's own: in how many rounds on end, since when.
    seen_attached: u32 = 0,
    seen_since: u64 = 0,
    /// The last mask of signals that it was asked to have; see shareMask.
    mask_turn: u32 = 0,
    /// It was asked since its goroutine began a call, perhaps: that may put back the mask that it
    /// found, as the C library's system() does. Under the lane's lock.
    mask_again: bool = false,
    /// It has a mask of its own, for the goroutine that is locked to it.
    keeps_mask: bool = false,
    next_idle: ?*M = null,
    next_all: ?*M = null,

    /// Until it is woken, the time is up, or a signal comes. Two threads that pass the P to each
    /// other need not sleep in between.
    pub fn rest(m: *M, timeout_ns: ?u64) os.Wake {
        const short = m.passed_on or m.locked_g != null;
        m.passed_on = false;
        if (!short) return m.note.sleep(timeout_ns);
        if (m.spinning.spin(&m.note, tunables.spin_ns.get())) return .woken;
        const start = os.nanotime();
        const wake = m.note.sleep(timeout_ns);
        if (wake == .woken) m.spinning.slept(start, tunables.spin_ns.get());
        return wake;
    }

    const succession = @import("succession.zig").Succession(M, os);
    pub const appoint = succession.appoint;
    pub const wakeSuccessor = succession.wakeSuccessor;
};

threadlocal var current_m: ?*M = null;

pub noinline fn current() ?*M {
    return current_m;
}

pub noinline fn setCurrent(m: ?*M) void {
    current_m = m;
}
