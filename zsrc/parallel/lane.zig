//! The native lane of this process: its one scheduler, its goroutines' memory and its threads.
//!
//! `switching.zig` moves between goroutines, `proc.zig` decides which runs, `threads.zig` has the
//! Ms, `sysmon.zig` watches, `interrupt.zig` preempts: all generic, so that `zsrc/check` explores
//! the same code. Here they are put together.
const std = @import("std");
const os = @import("../os/os.zig");
const env = @import("env.zig");
const arena_mod = @import("arena.zig");
const arch = @import("../arch/arch.zig");
const proc = @import("proc.zig");
const types = @import("types.zig");
const netpoll = @import("netpoll.zig");
const preempt = @import("preempt.zig");
const deadlock = @import("deadlock.zig");
const text = @import("text.zig");
const tsan = @import("tsan.zig");
const tunables_mod = @import("../core/tunables.zig");

pub const Env = env.Real;
pub const Sched = proc.Proc(Env, Host);
pub const G = Sched.G;
pub const M = Sched.M;
pub const P = Sched.P;
pub const Batch = Sched.Batch;
pub const Timers = Sched.T.Timers;
pub const most_procs = proc.most_procs;

pub const switching = @import("switching.zig").Switching(lane);
pub const threads = @import("threads.zig").Threads(lane);
pub const sysmon = @import("sysmon.zig").Sysmon(lane);
pub const interrupt = @import("interrupt.zig").Interrupt(lane);
pub const events = @import("events.zig");
const lane = @This();

pub const gpa = @import("memory.zig").gpa;

/// How long an M without work keeps its thread.
pub const m_idle_ns: ?u64 = 10 * std.time.ns_per_s;

pub const Options = struct {
    gomaxprocs: u32 = 0,
    max_threads: u32 = 10_000,
    preempt_async: bool = true,
    retake_enabled: bool = true,
    stack_size: usize = 256 * 1024,
    stack_keep: usize = 64 << 20,
    seed: u64 = 0,
    /// See deadlock.zig.
    detect_deadlock: bool = false,
    /// Changes of the process's tunables, if this starts the lane.
    tuned: tunables_mod.Change = .{},
};

pub const State = enum(u32) { off, starting, on, stopping };

pub var state: std.atomic.Value(State) = .init(.off);
pub var options: Options = .{};
pub const tunables = &tunables_mod.current;
pub var sched: Sched = .{};
pub var arena: arena_mod.Arena = .{};
pub var next_id: std.atomic.Value(u64) = .init(1);
/// Goroutines that threads outside of the runtime have started.
pub var foreign_spawns: std.atomic.Value(u64) = .init(0);

threadlocal var current_m: ?*M = null;

/// The M of this thread. Never inlined: see serial/m.zig.
pub noinline fn currentM() ?*M {
    return current_m;
}

noinline fn setCurrentM(m: ?*M) void {
    current_m = m;
}

/// The goroutine that calls, null outside of one.
pub inline fn current() ?*G {
    return arena.find(arch.stackPointer());
}

pub inline fn running() bool {
    return state.load(.acquire) == .on;
}

// ---- what the scheduler asks of its host ----

pub const Host = struct {
    pub const Start = types.Call;
    pub const tunables = lane.tunables;
    pub const sleepM = threads.sleepM;
    pub const newM = threads.newM;

    pub fn warnThreadLimit(s: *Sched) void {
        var line: [160]u8 = undefined;
        const format = "golibx: there is no thread for native goroutines that could run: " ++
            "max_threads is {d}; they wait for one to come free\n";
        os.writeStderr(std.fmt.bufPrint(&line, format, .{s.max_threads}) catch return);
    }

    pub fn wakeSysmon(_: *Sched) void {
        sysmon.wake();
    }

    pub fn pollWanted(_: *Sched) bool {
        return netpoll.wanted();
    }

    pub fn poll(s: *Sched, delay_ns: ?u64, out: *Batch) void {
        _ = s.netpolls.fetchAdd(1, .monotonic);
        if (delay_ns != 0) if (currentM()) |m| rest(m);
        netpoll.poll(delay_ns, out);
    }

    pub fn pollBreak(_: *Sched) void {
        netpoll.wake();
    }

    /// A timer wakes `g`, on the M that holds `p`.
    pub inline fn noteReady(p: *P, g: *G) void {
        events.record(p, .goroutine_ready, g.id, 0, 0);
    }

    /// `thief` has taken `n` goroutines from `victim`, and runs `g` of them.
    pub inline fn noteSteal(thief: *P, victim: *P, g: *G, n: u64) void {
        events.record(thief, .steal, g.id, @as(u64, thief.id) << 32 | victim.id, @intCast(n));
    }

    /// A goroutine that its P made ready a moment ago is most likely to run there at once: as Go,
    /// wait before stealing that (runqgrab sleeps 3 us).
    pub fn letRun(p: *P) void {
        const next = p.runq.next.load(.monotonic) orelse return;
        if (p.runq.len() > 0 or p.status.load(.monotonic) != .running) return;
        const until = os.nanotime() + 3 * std.time.ns_per_us;
        while (p.runq.next.load(.monotonic) == next and os.nanotime() < until)
            std.atomic.spinLoopHint();
    }
};

// ---- what the Ms ask of it ----

pub const Os = os;

/// The first and the last of an M's thread.
pub fn enterThread(m: *M) void {
    setCurrentM(m);
    m.fiber = tsan.thread();
    os.preciseSleep();
    preempt.enterThread(m);
}

pub fn leaveThread(m: *M) void {
    preempt.leaveThread(m);
    @atomicStore(i32, &m.tid, 0, .monotonic);
    setCurrentM(null);
}

/// sysmon's, when all Ps are idle: after how many ns it has to come again; null: it need not.
pub fn lookForDeadlock() ?u64 {
    if (!options.detect_deadlock) return null;
    deadlock.look();
    return deadlock.recheck_ns;
}

/// Whether a goroutine may be preempted there by a switch.
pub const preemptible = text.contains;

/// What the goroutine that calls keeps on its thread for the program that the library is part of:
/// nothing, something, or a lock as well that the whole program waits for.
pub const Holds = enum { nothing, state, lock };
pub var host_holds: ?*const fn () Holds = null;

pub inline fn holds() Holds {
    return (host_holds orelse return .nothing)();
}

/// Where the threads of Ms run: see preempt.zig.
pub const bringHere = preempt.bringHere;
pub const letMove = preempt.letMove;
pub const rest = preempt.rest;

/// Interrupts the M's thread; false if that is not possible.
pub const signal = preempt.signal;

// ---- life ----

/// While `state` is `starting`. Where there is Python, its own hook may come first.
var watches_forks = false;

pub const StartError = error{ OutOfMemory, ThreadLimit, Running, SystemLimit };

pub fn start(o: Options) StartError!void {
    // A thread that finds it running may use it at once. While it is on its way up or down, wait.
    while (state.cmpxchgStrong(.off, .starting, .acq_rel, .acquire)) |present| {
        if (present == .on) return error.Running;
        std.Thread.yield() catch {};
    }
    errdefer state.store(.off, .release);
    if (!watches_forks and !os.atFork(forget)) return error.OutOfMemory;
    watches_forks = true;
    options = o;
    _ = o.tuned.apply(tunables, null);
    if (options.seed == 0) options.seed = os.nanotime() ^ @intFromPtr(&options);
    sched = .{ .max_threads = @max(o.max_threads, 2) };
    foreign_spawns.store(0, .monotonic);
    arena = try .init(o.stack_size, o.stack_keep);
    errdefer arena.deinit();
    try netpoll.init();
    errdefer netpoll.deinit();
    const n = std.math.clamp(o.gomaxprocs, 1, proc.most_procs);
    {
        procs_lock.lock();
        defer procs_lock.unlock();
        try makeProcs(n);
    }
    errdefer freeProcs();
    // Before the first thread, which unblocks the signal.
    preempt.install();
    errdefer preempt.remove();
    try threads.start();
    errdefer threads.stopStarter();
    try sysmon.start();
    _ = sched.setProcs(n);
    state.store(.on, .release);
    threads.wantSpare();
}

/// Of the list of Ps, and of their rings of events.
pub var procs_lock: env.SpinLock = .{};

fn makeProcs(n: u32) error{OutOfMemory}!void {
    var have = sched.nallp.load(.monotonic);
    while (have < n) : (have += 1) {
        const p = try gpa.create(P);
        // Any seed but zero; the multiplier is splitmix64's, which spreads neighbouring numbers.
        p.* = .{ .id = have, .rng = (options.seed +% have +% 1) *% 0x9E3779B97F4A7C15 | 1 };
        events.prepare(p);
        sched.allp[have] = p;
        sched.nallp.store(have + 1, .release);
    }
}

fn freeProcs() void {
    procs_lock.lock();
    defer procs_lock.unlock();
    for (sched.procs()) |p| {
        events.release(p.?);
        p.?.timers.deinit(gpa);
        gpa.destroy(p.?);
    }
    sched.nallp.store(0, .release);
}

/// Sets GOMAXPROCS, 1 to most_procs; returns the number before.
pub fn setProcs(n: u32) error{OutOfMemory}!u32 {
    const before = before: {
        procs_lock.lock();
        defer procs_lock.unlock();
        try makeProcs(n);
        break :before sched.setProcs(n);
    };
    sysmon.wake();
    if (n != before) events.recordShared(.gomaxprocs, 0, before, n);
    return before;
}

/// For the end of a program that goroutines outlive: from here on they are threads like others.
/// None is preempted, and those that were stopped with their threads have Ps to go on. They may be
/// in the midst of what the end of the program needs, such as a lock of the C library.
pub fn letAllRun(patience_ns: u64) void {
    if (!running() or switching.goroutineCount() == 0) return;
    @atomicStore(bool, &options.preempt_async, false, .monotonic);
    const threads_now = @atomicLoad(u32, &sched.mcount, .monotonic);
    const wanted = sched.gomaxprocs.load(.monotonic) +| threads_now;
    _ = setProcs(@min(wanted, most_procs)) catch {};
    const deadline = os.nanotime() +| patience_ns;
    while (sched.queue.len.load(.monotonic) > 0 and os.nanotime() < deadline)
        os.sleepNs(100 * std.time.ns_per_us);
}

/// Until each thread that runs a goroutine has had so much CPU time, or has ended, or stands still.
pub fn letAllPass(cpu_ns: u64, patience_ns: u64, stands: *const fn (tid: i32) bool) void {
    if (!running()) return;
    var tids: [256]i32 = undefined;
    var goals: [256]u64 = undefined;
    const busy = threads.busy(&tids);
    for (busy, 0..) |tid, i| goals[i] = (os.threadCpuTime(tid) orelse 0) + cpu_ns;
    const deadline = os.nanotime() +| patience_ns;
    for (busy, 0..) |tid, i| {
        while ((os.threadCpuTime(tid) orelse goals[i]) < goals[i] and !stands(tid)) {
            if (os.nanotime() >= deadline) return;
            os.sleepNs(100 * std.time.ns_per_us);
        }
    }
}

/// Ends all threads. False, with everything as it was, if goroutines are left at `deadline`.
pub fn stop(deadline: ?u64) bool {
    while (switching.goroutineCount() != 0) {
        if (deadline) |when| {
            if (os.nanotime() >= when) return false;
        }
        os.sleepNs(200 * std.time.ns_per_us);
    }
    if (state.cmpxchgStrong(.on, .stopping, .acq_rel, .monotonic) != null) return true;
    threads.stop();
    preempt.remove();
    netpoll.deinit();
    freeProcs();
    arena.deinit();
    state.store(.off, .release);
    return true;
}

/// In the child of a fork: the threads are gone, and the goroutines with them. One that forked goes
/// on as a thread, on its stack.
pub fn forget() callconv(.c) void {
    if (state.load(.monotonic) == .off) return;
    preempt.remove();
    netpoll.forget();
    sched = .{};
    procs_lock = .{};
    threads.forget();
    sysmon.forget();
    arena = .{};
    current_m = null;
    state.store(.off, .release);
}
