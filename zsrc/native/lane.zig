//! The native lane of this process: its one scheduler, its goroutines' memory and its threads.
//!
//! `switching.zig` moves between goroutines, `proc.zig` decides which runs, `sysmon.zig` watches; here
//! are the Ms. Threads are made by a thread of their own, the starter: pthread_create takes locks of
//! the C library that a goroutine stopped in mid-call may hold, and a P that waited for it could be
//! the one that this goroutine needs.
const std = @import("std");
const os = @import("../os/os.zig");
const env = @import("env.zig");
const arena_mod = @import("arena.zig");
const proc = @import("proc.zig");
const switching = @import("switching.zig");
const sysmon = @import("sysmon.zig");
const netpoll = @import("netpoll.zig");
const preempt = @import("preempt.zig");
const tsan = @import("tsan.zig");

pub const Env = env.Real;
pub const Sched = proc.Proc(Env, Host);
pub const G = Sched.G;
pub const M = Sched.M;
pub const P = Sched.P;
pub const Batch = Sched.Batch;
pub const Timers = Sched.T.Timers;

/// Nothing here comes from malloc, whose locks a stopped goroutine may hold.
pub const gpa = std.heap.smp_allocator;

/// How long an M without work keeps its thread.
const m_idle_ns = 10 * std.time.ns_per_s;

pub const Options = struct {
    gomaxprocs: u32 = 0,
    max_threads: u32 = 10_000,
    preempt_async: bool = true,
    preempt_slice_ns: u64 = 10 * std.time.ns_per_ms,
    sysmon_sleep_min_ns: u64 = 20 * std.time.ns_per_us,
    sysmon_sleep_max_ns: u64 = 10 * std.time.ns_per_ms,
    sysmon_idle_rounds: u32 = 50,
    retake_enabled: bool = true,
    retake_threshold_ns: u64 = 20 * std.time.ns_per_us,
    retake_threshold_idle_ns: u64 = 10 * std.time.ns_per_ms,
    stack_size: usize = 256 * 1024,
    stack_keep: usize = 64 << 20,
    seed: u64 = 0,
};

pub const State = enum(u32) { off, starting, on, stopping };

pub var state: std.atomic.Value(State) = .init(.off);
pub var options: Options = .{};
pub var sched: Sched = .{};
pub var arena: arena_mod.Arena = .{};
pub var next_id: std.atomic.Value(u64) = .init(1);
/// Goroutines that threads outside of the runtime have started.
pub var foreign_spawns: std.atomic.Value(u64) = .init(0);

var threads: Threads = .{};

const Threads = struct {
    lock: env.SpinLock = .{},
    next_m: u32 = 0,
    all: ?*M = null,
    /// To be started, with their Ps in nextp.
    wanted: ?*M = null,
    /// Have ended, to be joined.
    ended: ?*M = null,
    /// Have been joined.
    buried: ?*M = null,
    starter: ?os.Thread = null,
    note: os.Note = .{},
    spare_wanted: std.atomic.Value(bool) = .init(false),
    stop: bool = false,
};

threadlocal var current_m: ?*M = null;

/// The M of this thread. Never inlined: see sched/m.zig.
pub noinline fn currentM() ?*M {
    return current_m;
}

noinline fn setCurrentM(m: ?*M) void {
    current_m = m;
}

pub inline fn running() bool {
    return state.load(.acquire) == .on;
}

// ---- what the scheduler asks of its host ----

pub const Host = struct {
    pub fn sleepM(s: *Sched, m: *M) bool {
        if (m.rest.spin(Woken{ .note = &m.note })) return true;
        const began = os.nanotime();
        while (true) {
            switch (m.note.sleep(m_idle_ns)) {
                .woken => {
                    preempt.letMove(m);
                    m.rest.slept(began);
                    return true;
                },
                .interrupted => {},
                .timeout => {
                    s.lock.lock();
                    defer s.lock.unlock();
                    // One spare is kept for a preemption that needs it.
                    if (s.nmidle.load(.monotonic) <= s.gomaxprocs.load(.monotonic)) continue;
                    if (s.unlistM(m)) return false;
                },
            }
        }
    }

    const Woken = struct {
        note: *os.Note,

        pub inline fn woken(w: Woken) bool {
            return w.note.isWoken();
        }
    };

    /// `p` is nobody's, and mcount counts the thread already.
    pub fn newM(s: *Sched, p: *P, spinning: bool) void {
        const m = newMemory() catch return s.newMFailed(p, spinning);
        m.* = .{ .nextp = p, .spinning = spinning };
        request(m);
    }

    pub fn warnThreadLimit(s: *Sched) void {
        var line: [160]u8 = undefined;
        os.writeStderr(std.fmt.bufPrint(&line, "golibx: no thread to be had for native goroutines that " ++
            "could run: max_threads is {d}; they wait for one to come free\n", .{s.max_threads}) catch return);
    }

    pub fn wakeSysmon(_: *Sched) void {
        sysmon.wake();
    }

    pub fn pollWanted(_: *Sched) bool {
        return netpoll.wanted();
    }

    pub fn poll(s: *Sched, delay_ns: ?u64, out: *Batch) void {
        _ = s.netpolls.fetchAdd(1, .monotonic);
        netpoll.poll(delay_ns, out);
    }

    pub fn pollBreak(_: *Sched) void {
        netpoll.wake();
    }

    /// A goroutine that its P made ready a moment ago is most likely to run there at once: as Go, wait
    /// before stealing that (runqgrab sleeps 3 us).
    pub fn letRun(p: *P) void {
        const next = p.runq.next.load(.monotonic) orelse return;
        if (p.runq.len() > 0 or p.status.load(.monotonic) != .running) return;
        const until = os.nanotime() + 3 * std.time.ns_per_us;
        while (p.runq.next.load(.monotonic) == next and os.nanotime() < until) std.atomic.spinLoopHint();
    }
};

// ---- threads ----

fn request(m: *M) void {
    threads.lock.lock();
    m.id = threads.next_m;
    threads.next_m += 1;
    m.idle_next = threads.wanted;
    threads.wanted = m;
    threads.lock.unlock();
    threads.note.wake();
}

/// A spare M for preemptions that need one, unless there is one or the limit is reached. Signal handlers
/// call this, so the starter does the work.
pub fn wantSpare() void {
    if (sched.nmidle.load(.monotonic) > 0) return;
    threads.spare_wanted.store(true, .release);
    threads.note.wake();
}

fn makeSpare() void {
    if (sched.nmidle.load(.monotonic) > 0) return;
    sched.lock.lock();
    const allowed = sched.mcount < sched.max_threads and !sched.stopping.load(.monotonic);
    if (allowed) sched.mcount += 1;
    sched.lock.unlock();
    if (!allowed) return;
    const m = gpa.create(M) catch {
        sched.lock.lock();
        sched.mcount -= 1;
        return sched.lock.unlock();
    };
    m.* = .{};
    request(m);
}

fn starterMain(_: ?*anyopaque) void {
    while (true) {
        _ = threads.note.sleep(null);
        threads.note.clear();
        if (threads.spare_wanted.swap(false, .acquire)) makeSpare();
        while (true) {
            threads.lock.lock();
            const ended = threads.ended;
            if (ended) |m| threads.ended = m.idle_next;
            const wanted = if (ended == null) threads.wanted else null;
            if (wanted) |m| {
                threads.wanted = m.idle_next;
                m.idle_next = null;
                m.all_next = threads.all;
                threads.all = m;
            }
            const ending = threads.stop;
            threads.lock.unlock();
            if (ended) |m| bury(m) else if (wanted) |m| startThread(m) else if (ending) return else break;
        }
    }
}

fn startThread(m: *M) void {
    m.thread = os.spawn(mMain, m, .{ .signals = .blocked }) catch {
        const p = m.nextp;
        const spinning = m.spinning;
        unlistThread(m);
        if (p) |given| return sched.newMFailed(given, spinning);
        sched.lock.lock();
        sched.mcount -= 1;
        return sched.lock.unlock();
    };
}

fn bury(m: *M) void {
    m.thread.?.join();
    unlistThread(m);
}

fn unlistThread(m: *M) void {
    threads.lock.lock();
    defer threads.lock.unlock();
    var link = &threads.all;
    while (link.*) |each| : (link = &each.all_next) {
        if (each != m) continue;
        link.* = m.all_next;
        break;
    }
    m.idle_next = threads.buried;
    threads.buried = m;
}

/// For an M. sysmon may still be about to signal one whose thread has ended, so that their memory is
/// used again, but given back only when sysmon has ended.
fn newMemory() error{OutOfMemory}!*M {
    threads.lock.lock();
    const used = threads.buried;
    if (used) |m| threads.buried = m.idle_next;
    threads.lock.unlock();
    return used orelse gpa.create(M);
}

fn freeMemory() void {
    while (threads.buried) |m| {
        threads.buried = m.idle_next;
        gpa.destroy(m);
    }
}

fn mMain(raw: ?*anyopaque) void {
    const m: *M = @ptrCast(@alignCast(raw.?));
    setCurrentM(m);
    m.fiber = tsan.thread();
    os.preciseSleep();
    preempt.enterThread(m);
    if (m.nextp) |p| {
        m.nextp = null;
        Sched.acquireP(m, p);
        switching.loop(m);
    } else if (sched.stopM(m)) switching.loop(m);
    preempt.leaveThread(m);
    setCurrentM(null);
    threads.lock.lock();
    m.idle_next = threads.ended;
    threads.ended = m;
    threads.lock.unlock();
    threads.note.wake();
    // Last: `stop` waits for it, and then for the starter, which joins what has ended.
    sched.lock.lock();
    sched.mcount -= 1;
    sched.lock.unlock();
}

// ---- life ----

pub const StartError = error{ OutOfMemory, ThreadLimit, Running, SystemLimit };

pub fn start(o: Options) StartError!void {
    // Whoever finds it running may use it at once: one that is on its way up or down is waited for.
    while (state.cmpxchgStrong(.off, .starting, .acq_rel, .acquire)) |present| {
        if (present == .on) return error.Running;
        std.Thread.yield() catch {};
    }
    errdefer state.store(.off, .release);
    options = o;
    if (options.seed == 0) options.seed = os.nanotime() ^ @intFromPtr(&options);
    sched = .{ .max_threads = @max(o.max_threads, 2) };
    threads = .{};
    foreign_spawns.store(0, .monotonic);
    arena = try .init(o.stack_size, o.stack_keep);
    errdefer arena.deinit();
    try netpoll.init();
    errdefer netpoll.deinit();
    const n = std.math.clamp(o.gomaxprocs, 1, proc.most_procs);
    try makeProcs(n);
    errdefer freeProcs();
    // Before the first thread, which unblocks the signal.
    preempt.install();
    errdefer preempt.remove();
    threads.starter = os.spawn(starterMain, null, .{ .signals = .blocked }) catch return error.ThreadLimit;
    errdefer stopStarter();
    try sysmon.start();
    _ = sched.setProcs(n);
    state.store(.on, .release);
    wantSpare();
}

fn stopStarter() void {
    threads.lock.lock();
    threads.stop = true;
    threads.lock.unlock();
    threads.note.wake();
    threads.starter.?.join();
}

var procs_lock: env.SpinLock = .{};

fn makeProcs(n: u32) error{OutOfMemory}!void {
    var have = sched.nallp.load(.monotonic);
    while (have < n) : (have += 1) {
        const p = try gpa.create(P);
        // Any seed but zero; the multiplier is splitmix64's, which spreads neighbouring numbers.
        p.* = .{ .id = have, .rng = (options.seed +% have +% 1) *% 0x9E3779B97F4A7C15 | 1 };
        sched.allp[have] = p;
        sched.nallp.store(have + 1, .release);
    }
}

fn freeProcs() void {
    for (sched.procs()) |p| {
        p.?.timers.deinit(gpa);
        gpa.destroy(p.?);
    }
    sched.nallp.store(0, .release);
}

/// Sets GOMAXPROCS, 1 to most_procs; returns the number before.
pub fn setProcs(n: u32) error{OutOfMemory}!u32 {
    procs_lock.lock();
    defer procs_lock.unlock();
    try makeProcs(n);
    const before = sched.setProcs(n);
    sysmon.wake();
    return before;
}

/// Goroutines that live. Ends are read before beginnings, so that none left is true.
pub fn goroutineCount() u64 {
    var ended: u64 = 0;
    for (sched.procs()) |p| ended += @atomicLoad(u64, &p.?.counters.exits, .acquire);
    var begun: u64 = 0;
    for (sched.procs()) |p| begun += @atomicLoad(u64, &p.?.counters.spawns, .acquire);
    return (begun + foreign_spawns.load(.acquire)) -| ended;
}

/// Ends all threads. False, with everything as it was, if goroutines are left at `deadline`.
pub fn stop(deadline: ?u64) bool {
    while (goroutineCount() != 0) {
        if (deadline) |when| {
            if (os.nanotime() >= when) return false;
        }
        os.sleepNs(200 * std.time.ns_per_us);
    }
    if (state.cmpxchgStrong(.on, .stopping, .acq_rel, .monotonic) != null) return true;
    sched.lock.lock();
    sched.stopping.store(true, .seq_cst);
    sched.lock.unlock();
    sysmon.stop();
    while (true) {
        netpoll.wake();
        sched.lock.lock();
        while (sched.idle_m) |m| {
            sched.idle_m = m.idle_next;
            m.idle_next = null;
            m.idle = false;
            _ = sched.nmidle.fetchSub(1, .monotonic);
            m.quit = true;
            m.note.wake();
        }
        const left = sched.mcount;
        sched.lock.unlock();
        if (left == 0) break;
        os.sleepNs(20 * std.time.ns_per_us);
    }
    stopStarter();
    freeMemory();
    preempt.remove();
    netpoll.deinit();
    freeProcs();
    arena.deinit();
    state.store(.off, .release);
    return true;
}

/// In the child of a fork: the threads are gone, and the goroutines with them.
pub fn forget() void {
    if (state.load(.monotonic) == .off) return;
    preempt.remove();
    netpoll.deinit();
    sched = .{};
    threads = .{};
    arena = .{};
    current_m = null;
    state.store(.off, .release);
}
