//! G, M and P of the native lane: goroutine, thread and processor, as in Go.
//!
//! A goroutine runs on an M that holds a P. There are GOMAXPROCS Ps, as many Ms as blocking calls
//! and preempted foreign code make necessary. Fields are written by the M that runs the goroutine
//! or holds the P, unless a comment says otherwise; what others read at any time is atomic.
//!
//!     idle ──▶ runnable ──▶ running ──▶ dead ──▶ idle
//!                 ▲ ▲        │ │ ▲
//!                 │ │ preempted│ └── syscall   (entersyscall, exitsyscall)
//!                 │ └────────┘ └──▶ syscall ──▶ runnable
//!                 └── waiting ◀── running
//!
//! A goroutine becomes `waiting` or `runnable` before its context is saved, but is published to the
//! Ms that could run it only afterwards, by the commit that the next context on the same M
//! performs: see switching.zig.
const std = @import("std");
const os = @import("../os/os.zig");
const event = @import("../event/event.zig");
const runq = @import("runq.zig");
const timers_mod = @import("timers.zig");
const tsan = @import("tsan.zig");
const token_mod = @import("token.zig");

pub const GStatus = enum(u32) {
    idle,
    runnable,
    running,
    syscall,
    waiting,
    /// Stopped inside a signal handler, with its thread (KLT-switch) or by a switch (signal-yield).
    preempted,
    dead,

    pub fn mayBecome(from: GStatus, to: GStatus) bool {
        return switch (from) {
            .idle => to == .runnable,
            .runnable => to == .running,
            .running => switch (to) {
                .runnable, .syscall, .waiting, .preempted, .dead => true,
                else => false,
            },
            .syscall => to == .running or to == .runnable,
            .waiting => to == .runnable,
            .preempted => to == .runnable,
            .dead => to == .idle,
        };
    }
};

pub const PStatus = enum(u32) {
    /// On the idle list, or on its way from one M to another.
    idle,
    /// Held by an M.
    running,
    /// Its M is in a system call: the thread that makes it `idle` or `running` by a CAS has it.
    syscall,
    /// Beyond GOMAXPROCS.
    dead,
};

/// A goroutine that holds a lock of the whole program may keep its P for so many slices.
const slices_with_lock = 10;

/// The last transitions of a goroutine that debug builds keep.
pub const history_len = 16;

/// What a goroutine runs, on a host that has C functions for goroutines.
pub const Call = struct {
    function: ?*const fn (?*anyopaque) callconv(.c) void = null,
    arg: ?*anyopaque = null,

    /// Once, on the goroutine's stack, outside of the scheduler; returns when it has ended.
    pub inline fn run(c: *const Call) void {
        c.function.?(c.arg);
    }
};

/// `Start` is what a goroutine runs: `Call`, or another host's.
pub fn Types(comptime Env: type, comptime Start: type) type {
    return struct {
        pub const Timers = timers_mod.Timers(Env, G);
        pub const Batch = runq.Batch(G);

        pub const Transition = struct { from: GStatus = .idle, to: GStatus = .idle, m: u32 = 0 };

        pub const G = struct {
            /// Saved stack pointer while not running.
            sp: usize = 0,
            /// The M it runs on or is stopped on.
            m: ?*M = null,
            /// Positive while it is inside the runtime: no preemption. Read by the signal handler
            /// on the same thread.
            locks: u32 = 0,
            /// The handler came while `locks` was positive: give way at the end of the call.
            preempt: bool = false,
            /// Of golibx_park() and golibx_ready().
            token: token_mod.Token(Env) = .{},
            status: Env.Atomic(GStatus) = .init(.idle),
            /// Link of the one queue it is in.
            next: ?*G = null,
            /// The only M that may run it: it was locked to its thread, or stopped with it.
            locked_m: ?*M = null,
            lock_count: u32 = 0,
            reason: @import("../serial/g.zig").WaitReason = .none,
            id: u64 = 0,
            start: Start = .{},
            fiber: tsan.Fiber = tsan.none,
            // For events.zig, while events are wanted: the id that `parent` and `started_ns` are
            // of, since this memory serves one goroutine after the other.
            noted_id: u64 = 0,
            parent: u64 = 0,
            started_ns: u64 = 0,
            history: if (std.debug.runtime_safety) [history_len]Transition else void =
                if (std.debug.runtime_safety) @splat(.{}) else {},
            /// The M that has run it last. Its memory may be another M's by now.
            last_m: if (std.debug.runtime_safety)
                u32
            else
                void = if (std.debug.runtime_safety) 0 else {},
            history_at: if (std.debug.runtime_safety) usize else void =
                if (std.debug.runtime_safety) 0 else {},

            pub inline fn transition(g: *G, from: GStatus, to: GStatus) void {
                if (std.debug.runtime_safety) g.check(from, to);
                g.status.store(to, .monotonic);
            }

            fn check(g: *G, from: GStatus, to: GStatus) void {
                const present = g.status.raw;
                if (present != from or !from.mayBecome(to)) {
                    g.printHistory();
                    Env.fatal(
                        "goroutine {d} is {t}, cannot go from {t} to {t}",
                        .{ g.id, present, from, to },
                    );
                }
                g.history[g.history_at % history_len] = .{
                    .from = from,
                    .to = to,
                    .m = g.last_m,
                };
                g.history_at += 1;
            }

            /// The transitions that a debug build has kept, oldest first, to stderr.
            pub fn printHistory(g: *const G) void {
                if (!std.debug.runtime_safety) return;
                const first = g.history_at -| history_len;
                for (first..g.history_at) |i| {
                    const t = g.history[i % history_len];
                    var line: [96]u8 = undefined;
                    const format = "goroutine {d}: {t} -> {t} on M {d}\n";
                    const shown = .{ g.id, t.from, t.to, t.m };
                    Env.writeStderr(std.fmt.bufPrint(&line, format, shown) catch continue);
                }
            }
        };

        pub const M = struct {
            id: u32 = 0,
            /// Saved stack pointer of g0 while a goroutine runs.
            sp: usize = 0,
            curg: Env.Atomic(?*G) = .init(null),
            p: ?*P = null,
            /// Given by the thread that wakes the M.
            nextp: ?*P = null,
            /// What it held before a system call.
            oldp: ?*P = null,
            /// Looks for work, and is counted in nmspinning.
            spinning: bool = false,
            /// End the thread at the next wake-up without a P. Under the scheduler's lock.
            quit: bool = false,
            /// Its goroutine has locked it: it runs nothing else.
            locked_g: ?*G = null,
            /// What g0 runs first: a goroutine found by one that could not switch to it itself.
            pending_g: ?*G = null,
            note: Env.Note = .{},
            /// In the idle list. Under the scheduler's lock.
            idle: bool = false,
            idle_next: ?*M = null,
            all_next: ?*M = null,
            rest: Env.Rest = .{},

            // What the context that was left wants done once it is saved, by the next on this M.
            left: ?*G = null,
            commit: *const fn (*M, *G, ?*anyopaque) bool = undefined,
            commit_arg: ?*anyopaque = null,

            // Of the real thread.
            fiber: tsan.Fiber = tsan.none,
            thread: ?Env.Thread = null,
            tid: i32 = 0,
            /// The CPUs that its thread may use; set by the M that brings it to its own CPU, which
            /// is only for a wake-up.
            affinity: [16]usize = undefined,
            brought: bool = false,
            /// Its thread wakes up behind the one that runs on its CPU; until it rests.
            patient: bool = false,
            /// A preemption signal is on its way.
            signalled: Env.Atomic(bool) = .init(false),
            fault: os.FaultStack = .{},
            fault_memory: []u8 = &.{},
        };

        pub const P = struct {
            id: u32,
            status: Env.Atomic(PStatus) = .init(.dead),
            /// The M that holds it; also while that M is in a system call.
            m: Env.Atomic(?*M) = .init(null),
            runq: runq.LocalQueue(Env, G, Env.local_queue_size) = .{},
            /// Counts the goroutines that got a time slice.
            schedtick: Env.Atomic(u32) = .init(0),
            /// The global queue comes before the local one.
            global_owed: bool = false,
            /// Counts the system calls.
            syscalltick: Env.Atomic(u32) = .init(0),
            /// sysmon asks the P to look at everything before it goes on.
            attention: Env.Atomic(bool) = .init(false),
            /// When the P last obeyed: about when the present slice began.
            slice_at: Env.Atomic(u64) = .init(0),
            /// The schedtick that a preemption signal is about.
            preempt_tick: Env.Atomic(u32) = .init(0),
            /// Since when that goroutine had run then.
            preempt_since: Env.Atomic(u64) = .init(0),
            /// Signals that its goroutine outlasted with a lock of the whole program: the signal
            /// handler's.
            lock_patience: struct { tick: u32 = 0, count: u32 = 0 } = .{},
            timers: Timers = .{},
            idle_next: ?*P = null,
            rng: u64 = 0,
            /// Free goroutines, with their stacks.
            free: Batch = .{},
            next_id: u64 = 0,
            end_id: u64 = 0,
            counters: Counters = .{},
            /// Of its events, if there ever was a plugin for them: see events.zig.
            ring: Env.Atomic(?*event.RingOf(Env)) = .init(null),
            // sysmon's own: what it saw on its last round, and when that began.
            seen_schedtick: u32 = 0,
            seen_sched_at: u64 = 0,
            seen_syscalltick: u32 = 0,
            seen_syscall_at: u64 = 0,
            requested_at: u64 = 0,

            /// Whether a goroutine that holds a lock of the whole program may go on, which would
            /// have to wait for its next turn otherwise. Not for ever: others wait for the P.
            pub fn isPatient(p: *P) bool {
                const tick = p.schedtick.load(.monotonic);
                if (p.lock_patience.tick != tick) p.lock_patience = .{ .tick = tick };
                p.lock_patience.count += 1;
                return p.lock_patience.count <= slices_with_lock;
            }

            pub fn random(p: *P, below: u32) u32 {
                // xorshift64*, Vigna 2016: any state but zero.
                var x = p.rng;
                x ^= x >> 12;
                x ^= x << 25;
                x ^= x >> 27;
                p.rng = x;
                const high: u32 = @truncate((x *% 0x2545F4914F6CDD1D) >> 32);
                return @intCast(@as(u64, high) * below >> 32);
            }
        };

        /// Written by the M that holds the P; any thread reads these and adds up all Ps.
        pub const Counters = struct {
            spawns: u64 = 0,
            exits: u64 = 0,
            switches: u64 = 0,
            steals: u64 = 0,
            netpoll_wakeups: u64 = 0,
            timer_fires: u64 = 0,
            timer_steals: u64 = 0,
            preempt_yields: u64 = 0,
            preempt_klt: u64 = 0,
            preempt_coop: u64 = 0,
            refused_runtime: u64 = 0,
            refused_stale: u64 = 0,
            refused_thread: u64 = 0,
            refused_alone: u64 = 0,
            refused_lock: u64 = 0,
        };
    };
}

/// One more, for readers that look at any time. Only its owner writes it.
pub inline fn count(counter: *u64, n: u64) void {
    @atomicStore(u64, counter, counter.* +% n, .monotonic);
}
