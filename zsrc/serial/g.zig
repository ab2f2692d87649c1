//! G: a goroutine as the scheduler sees it.
//!
//! Every field is written under the lane's lock (see lane.zig), most by the M that runs the
//! goroutine, the rest by the thread that wakes it. Nothing here knows what the goroutine executes:
//! a layer above embeds G in its own structure and finds that again with @fieldParentPtr.
//!
//!     idle ──▶ runnable ──▶ running ──▶ dead
//!                  ▲        │  ▲ │
//!                  │        │  │ └──▶ parking ──▶ waiting
//!                  │        │  └─ syscall   │         │
//!                  │        └──────▲        ▼         │
//!                  ├───────────────┘    notified      │
//!                  └────────────────────────┴─────────┘
//!
//! `parking` and `notified` cover the moment between queueing a goroutine as a waiter and saving
//! its context: a wake-up that arrives then must not make it runnable while its stack is in use.
const std = @import("std");
const M = @import("m.zig").M;
const Timer = @import("timer.zig").Timer;
const Context = @import("context.zig").Context;
const os = @import("../os/os.zig");
const wait = @import("../core/wait.zig");
const fatal = os.fatal;

pub const Status = enum(u8) {
    /// Created, has neither stack nor context yet.
    idle,
    /// In a run queue.
    runnable,
    /// Runs on an M that holds the lane's P.
    running,
    /// Its M lost the P while the goroutine was in a blocking call.
    syscall,
    /// Queued as a waiter, its context not saved yet.
    parking,
    /// As parking, and already woken.
    notified,
    /// Waits; its context is saved.
    waiting,
    /// Finished.
    dead,

    fn mayBecome(from: Status, to: Status) bool {
        return switch (from) {
            .idle => to == .runnable,
            .runnable => to == .running or to == .dead,
            .running => switch (to) {
                .runnable, .syscall, .parking, .dead => true,
                else => false,
            },
            .syscall => to == .running or to == .runnable,
            .parking => to == .waiting or to == .notified,
            .notified => to == .runnable,
            .waiting => to == .runnable,
            .dead => to == .idle,
        };
    }
};

/// Which goroutines go first: ranks.zig.
pub const Priority = enum(u8) { low, normal, high };

pub const WaitReason = wait.WaitReason;
pub const Wake = wait.Wake;

/// Whether a waker may still end a wait.
pub const Claim = enum(u8) {
    /// The first that claims it may.
    open,
    /// None may: it has been claimed.
    taken,
    /// As open, and threads without the host's lock compete: `G.contest` decides.
    contested,
};

pub const Stack = extern struct {
    lo: usize = 0,
    size: usize = 0,

    pub inline fn hi(s: Stack) usize {
        return s.lo + s.size;
    }

    pub inline fn contains(s: Stack, address: usize) bool {
        return address -% s.lo < s.size;
    }
};

pub const G = extern struct {
    // What a switch reads and writes comes first, so that it lies in two cache lines: among many
    // goroutines each costs a wait.

    /// Saved stack pointer while not running.
    sp: usize = 0,
    /// Link of the one queue it is in.
    next: ?*G = null,
    /// The M it runs on, or blocks on while in a syscall.
    m: ?*M = null,
    /// The frame of a call to the runtime that comes straight from the goroutine's own code, so
    /// that nothing of others' lies below; 0 where that is not known.
    plain_frame: usize = 0,
    /// The same, where that code calls the runtime through one function of its host's: that one's
    /// frame has one size, so that the frame and where it returns to tell.
    near_frame: usize = 0,
    near_return: usize = 0,
    /// The frame of the last call that was neither: the next one with that frame is on this stack
    /// too.
    deep_frame: usize = 0,
    stack: Stack = .{},
    /// The only M that it may run on. Where `lock_count` is 0 it keeps its M just until it goes on:
    /// keeping.zig.
    locked_m: ?*M = null,
    /// Of the stand-in of a thread that runs no goroutine: what the thread sleeps on. Such a G is
    /// in no list of the lane and never runs; its waits end as `notified`.
    thread: ?*os.Note = null,
    /// What cancels its waits.
    context: ?*Context = null,
    status: Status = .idle,
    /// The last call to the runtime was another one.
    deep: bool = true,
    /// It gave way by itself, and has not gone on since.
    gave_way: bool = false,
    /// Its priority, as far as it counts now: ranks.zig.
    rank: Priority = .normal,
    reason: WaitReason = .none,
    wake: Wake = .ready,
    /// Set by the waker that claims it; all other wakers of the same wait see it and pass by.
    claimed: Claim = .open,
    /// A helper of the runtime: not counted, not part of deadlock detection.
    system: bool = false,
    /// The M that picks it has to look closer, in `belongsElsewhere`: it may not run on just any
    /// thread, as the main goroutine and those that are locked to one, or it is `timed`.
    placed: bool = false,
    /// Since when it waits for its turn was noted.
    timed: bool = false,
    /// And that is for latency.zig.
    sampled: bool = false,

    // The rest.

    /// The floating-point environment that it starts with: that of the code that started it.
    environment: u64 = undefined,
    id: u64 = 0,
    /// The priority that the program gave it. When it is woken, its rank is this again.
    priority: Priority = .normal,
    /// The slice that a plugin has given it until it waits, ns; 0 for that of all. When the stretch
    /// began of which it is a part, monotonic ns, and the tick while that lasts.
    slice_ns: u64 = 0,
    slice_began: u64 = 0,
    slice_tick: u64 = 0,
    /// Of a contested wait: the thread that changes it from 0 to 1 has claimed it.
    contest: ?*std.atomic.Value(u32) = null,
    /// How often it asked to be locked to its thread.
    lock_count: u32 = 0,
    /// Nothing may preempt it while positive.
    no_preempt: u32 = 0,
    /// How many objects `waiting_on` is an array of.
    waiting_count: u32 = 0,
    /// For dumps: what it waits on while it is parked, an object of the layer above that the
    /// waiting call holds, or an array of them. Set just before the wait; null afterwards.
    waiting_on: ?*anyopaque = null,
    /// About when it was parked last, by Lane.clock.
    parked_at: u64 = 0,
    /// Where it is timed: since when it has waited for its turn, as os/counter.zig has it.
    ready_at: u64 = 0,
    /// Its P was taken, or given up, for a blocking call: since when that goes on, monotonic ns; 0
    /// once it has one again.
    blocked_at: u64 = 0,
    /// The waiter that was claimed, set by its claimer: for a wait on several objects.
    fired: ?*anyopaque = null,
    timer: Timer = .{},
    /// Its place among those that wait under `context`.
    watch_link: ?*?*G = null,
    watch_next: ?*G = null,
    /// In an explored run: what it has drawn, 0 for nothing yet; and the object of which it is
    /// about to call a method, while it may give way there.
    lot: u64 = 0,
    at_object: usize = 0,
    /// All goroutines that are not dead.
    all_prev: ?*G = null,
    all_next: ?*G = null,

    /// Whether its wait has been claimed; a contested one may be claimed at any moment.
    pub inline fn isClaimed(g: *const G) bool {
        return switch (g.claimed) {
            .open => false,
            .taken => true,
            .contested => g.contest.?.load(.monotonic) != 0,
        };
    }

    /// Claims its wait: true for the first that asks, which has to wake it. With the lane's lock.
    pub inline fn claim(g: *G, wake: Wake) bool {
        if (g.claimed != .open and !g.winContest()) return false;
        g.claimed = .taken;
        g.wake = wake;
        return true;
    }

    /// Not a call, which would have every channel operation save registers for it.
    inline fn winContest(g: *G) bool {
        if (g.claimed == .taken) return false;
        return g.contest.?.cmpxchgStrong(0, 1, .acq_rel, .monotonic) == null;
    }

    /// Whether a call to the runtime with that frame, of the goroutine that runs, comes straight
    /// from its own code.
    pub inline fn isPlain(g: *const G, frame: usize) bool {
        if (g.plain_frame == frame) return true;
        if (g.near_frame != frame) return false;
        const returns_to: *const usize = @ptrFromInt(frame + @sizeOf(usize));
        return returns_to.* == g.near_return;
    }

    /// Its waits are not just waits: it is a stand-in, or has a context that may end them.
    pub inline fn isSpecial(g: *const G) bool {
        return @intFromPtr(g.thread) | @intFromPtr(g.context) != 0;
    }

    pub inline fn transition(g: *G, from: Status, to: Status) void {
        if (std.debug.runtime_safety and (g.status != from or !from.mayBecome(to)))
            fatal("goroutine {d} is {t}, cannot go from {t} to {t}", .{ g.id, g.status, from, to });
        g.status = to;
    }
};

pub const Queue = @import("../core/list.zig").Fifo(G);
