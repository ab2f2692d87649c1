//! The C ABI: what golibx.h declares, as thin as can be. Documentation is there.
//!
//! Each function enters the runtime on behalf of the goroutine that calls, if it is one, so that it
//! is not preempted inside (switching.zig). Arguments are checked here.
const std = @import("std");
const os = @import("../os/os.zig");
const lane = @import("../parallel/lane.zig");
const switching = lane.switching;
const sync = @import("sync.zig");
const unlockIt = @import("../core/waiters.zig").unlockIt;
const Wake = @import("../core/wait.zig").Wake;
const chans = @import("chan.zig");
const netpoll = @import("../parallel/netpoll.zig");
const events = @import("../parallel/events.zig");
const deadlock = @import("../parallel/deadlock.zig");
const preempt = @import("../parallel/preempt.zig");
const text = @import("../parallel/text.zig");
const tunables = @import("../core/tunables.zig");
const procs = @import("../parallel/procs.zig");

const G = lane.G;

pub const Code = enum(c_int) {
    ok = 0,
    closed = -1,
    would_block = -2,
    timeout = -3,
    no_memory = -4,
    thread_limit = -5,
    invalid = -6,
    not_running = -7,
    running = -8,
    system = -9,
};

pub inline fn code(c: Code) c_int {
    return @backingInt(c);
}

const forever = std.math.maxInt(i64);

/// Null is for ever.
pub inline fn limit(deadline: i64) ?u64 {
    return if (deadline == forever) null else @intCast(@max(0, deadline));
}

/// While a goroutine is inside the runtime.
pub const Caller = struct {
    g: ?*G,

    pub inline fn enter() Caller {
        return .{ .g = switching.enter() };
    }

    pub inline fn leave(c: Caller) void {
        if (c.g) |g| switching.leave(g);
    }
};

// ---- the library ----

const abi_version = 1;
const version = @import("version").text;

fn abiVersion() callconv(.c) c_int {
    return abi_version;
}

fn versionText() callconv(.c) [*:0]const u8 {
    return version;
}

fn errorText(number: c_int) callconv(.c) [*:0]const u8 {
    return switch (number) {
        0 => "no error",
        -1 => "closed",
        -2 => "it would block",
        -3 => "the deadline passed",
        -4 => "out of memory",
        -5 => "no more threads: max_threads or the system's limit is reached",
        -6 => "an argument is out of range, or the call is a misuse",
        -7 => "the runtime is not running",
        -8 => "the runtime is running already",
        -9 => "the operating system refused, see errno",
        else => "unknown error",
    };
}

fn errnoOfThread() callconv(.c) c_int {
    return os.net.getErrno();
}

// ---- the runtime ----

pub const Config = extern struct {
    size: u32,
    gomaxprocs: u32 = 0,
    max_threads: u32 = 0,
    no_async_preempt: u32 = 0,
    preempt_slice_ns: u64 = 0,
    sysmon_sleep_min_ns: u64 = 0,
    sysmon_sleep_max_ns: u64 = 0,
    retake_threshold_ns: u64 = 0,
    retake_threshold_idle_ns: u64 = 0,
    stack_size: usize = 0,
    stack_keep: usize = 0,
    seed: u64 = 0,
    detect_deadlock: u32 = 0,
};

const least_stack = 16 * 1024;
const largest_stack = 64 << 20;

fn readConfig(config: ?*const Config) ?lane.Options {
    var o: lane.Options = .{};
    // Beside Python what is not given is as its run has it.
    if (!deadlock.python.load(.monotonic)) o.tuned = .defaults;
    o.gomaxprocs = procs.default();
    if (procs.asyncPreemptOff()) o.preempt_async = false;
    const c = config orelse return o;
    // Fields that the caller's header does not have yet stay at their defaults.
    if (c.size < 8 or c.size > @sizeOf(Config)) return null;
    var full: Config = .{ .size = @sizeOf(Config) };
    const given: [*]const u8 = @ptrCast(c);
    @memcpy(@as([*]u8, @ptrCast(&full))[0..c.size], given[0..c.size]);
    if (full.gomaxprocs > procs.most) return null;
    if (full.stack_size != 0 and
        (full.stack_size < least_stack or full.stack_size > largest_stack or
            !std.math.isPowerOfTwo(full.stack_size))) return null;
    const fields = @typeInfo(Config).@"struct";
    inline for (fields.field_names) |field| {
        const value = @field(full, field);
        if (comptime @hasField(tunables.Tunables, field)) {
            if (value != 0) o.tuned.set(field, value);
        } else if (comptime isOption(field)) {
            if (value != 0) @field(o, field) = value;
        }
    }
    if (full.no_async_preempt != 0) o.preempt_async = false;
    o.detect_deadlock = full.detect_deadlock != 0;
    return o;
}

/// Of the same name and type, with 0 for the default.
fn isOption(comptime field: []const u8) bool {
    return @hasField(lane.Options, field) and
        @FieldType(lane.Options, field) == @FieldType(Config, field);
}

fn startCode(result: lane.StartError!void) Code {
    result catch |err| return switch (err) {
        error.OutOfMemory => .no_memory,
        error.ThreadLimit => .thread_limit,
        error.Running => .running,
        error.SystemLimit => .system,
    };
    return .ok;
}

fn start(config: ?*const Config) callconv(.c) c_int {
    const o = readConfig(config) orelse return code(.invalid);
    return code(startCode(lane.start(o)));
}

fn stop(deadline: i64) callconv(.c) c_int {
    if (switching.current() != null) return code(.invalid);
    if (!lane.running()) return code(.not_running);
    return code(if (lane.stop(limit(deadline))) .ok else .timeout);
}

const Run = struct {
    function: Function,
    arg: ?*anyopaque,
    done: sync.WaitGroup = .{},
    known: deadlock.Run,

    fn body(raw: ?*anyopaque) callconv(.c) void {
        const run: *Run = @ptrCast(@alignCast(raw.?));
        run.function(run.arg);
        const caller: Caller = .enter();
        defer caller.leave();
        deadlock.runEnds(&run.known);
        run.done.add(-1) catch unreachable;
    }
};

fn runMain(config: ?*const Config, function: ?Function, arg: ?*anyopaque) callconv(.c) c_int {
    const f = function orelse return code(.invalid);
    const o = readConfig(config) orelse return code(.invalid);
    const started = startCode(lane.start(o));
    if (started != .ok and started != .running) return code(started);
    var run: Run = .{ .function = f, .arg = arg, .known = .{ .function = @intFromPtr(f) } };
    const caller: Caller = .enter();
    defer caller.leave();
    run.done.add(1) catch unreachable;
    deadlock.runBegins(&run.known, &Run.body, &run);
    switching.go(.{ .function = Run.body, .arg = &run }) catch {
        deadlock.runEnds(&run.known);
        return code(.no_memory);
    };
    if (caller.g == null) deadlock.runWaits(&run.known);
    _ = run.done.wait(caller.g, null);
    return 0;
}

fn gomaxprocs(n: c_int) callconv(.c) c_int {
    if (!lane.running()) return code(.not_running);
    if (n < 0 or n > procs.most) return code(.invalid);
    const caller: Caller = .enter();
    defer caller.leave();
    if (n == 0) return @intCast(lane.sched.gomaxprocs.load(.monotonic));
    return @intCast(lane.setProcs(@intCast(n)) catch return code(.no_memory));
}

fn nanotime() callconv(.c) i64 {
    return @intCast(os.nanotime());
}

// ---- goroutines ----

const Function = *const fn (?*anyopaque) callconv(.c) void;

fn go(function: ?Function, arg: ?*anyopaque) callconv(.c) c_int {
    const f = function orelse return code(.invalid);
    if (!lane.running()) return code(.not_running);
    switching.go(.{ .function = f, .arg = arg }) catch return code(.no_memory);
    return 0;
}

fn gosched() callconv(.c) void {
    const g = switching.enter() orelse return std.Thread.yield() catch {};
    defer switching.leave(g);
    switching.gosched(g);
}

fn goid() callconv(.c) u64 {
    return (switching.current() orelse return 0).id;
}

fn sleep(ns: i64) callconv(.c) void {
    const g = switching.enter() orelse return if (ns > 0) os.sleepNs(@intCast(ns));
    defer switching.leave(g);
    if (ns <= 0) switching.gosched(g) else switching.sleep(g, @intCast(ns));
}

fn self() callconv(.c) ?*G {
    return switching.current();
}

fn park(deadline: i64) callconv(.c) c_int {
    const g = switching.enter() orelse return code(.invalid);
    defer switching.leave(g);
    var b: switching.Blocker = undefined;
    b.init(g, deadline != forever);
    switch (g.token.begin(if (deadline == 0) null else &b.wait)) {
        .woken => return code(.ok),
        .would_block => return code(.would_block),
        .waiting => {},
    }
    const wake = b.block(.lock, limit(deadline), &unlockIt(lane.Env.Lock), &g.token.lock);
    if (wake == .ready) return code(.ok);
    return code(if (g.token.end()) .ok else .timeout);
}

fn ready(g: ?*G) callconv(.c) void {
    const target = g orelse return;
    const caller: Caller = .enter();
    defer caller.leave();
    if (target.token.ready()) |wait| switching.Rt.wake(wait);
}

fn lockOsThread() callconv(.c) c_int {
    const g = switching.enter() orelse return code(.invalid);
    defer switching.leave(g);
    switching.lockThread(g);
    return 0;
}

fn unlockOsThread() callconv(.c) c_int {
    const g = switching.enter() orelse return code(.invalid);
    defer switching.leave(g);
    return code(if (switching.unlockThread(g)) .ok else .invalid);
}

fn enterSyscall() callconv(.c) void {
    // It stays inside the runtime until the way out: no thread preempts what has no P.
    const g = switching.enter() orelse return;
    switching.enterSyscall(g);
}

fn exitSyscall() callconv(.c) void {
    const g = switching.current() orelse return;
    if (g.status.load(.monotonic) != .syscall) return;
    switching.exitSyscall(g);
    switching.leave(g);
}

fn registerText(first: ?*const anyopaque, size: usize) callconv(.c) c_int {
    const at = @intFromPtr(first orelse return code(.invalid));
    if (size == 0 or at +% size < at) return code(.invalid);
    const caller: Caller = .enter();
    defer caller.leave();
    text.add(.{ .start = at, .end = at + size }) catch return code(.no_memory);
    return 0;
}

fn registerModule(address: ?*const anyopaque) callconv(.c) c_int {
    const at = @intFromPtr(address orelse return code(.invalid));
    const caller: Caller = .enter();
    defer caller.leave();
    var ranges: [16]text.Range = undefined;
    const n = procs.moduleText(at, &ranges);
    if (n == 0) return code(.invalid);
    for (ranges[0..n]) |each| text.add(each) catch return code(.no_memory);
    return 0;
}

// ---- package sync ----

fn mutexLock(m: *sync.Mutex) callconv(.c) void {
    const caller: Caller = .enter();
    defer caller.leave();
    m.lock(caller.g);
}

fn mutexTryLock(m: *sync.Mutex) callconv(.c) c_int {
    return code(if (m.tryLock()) .ok else .would_block);
}

fn mutexUnlock(m: *sync.Mutex) callconv(.c) c_int {
    const caller: Caller = .enter();
    defer caller.leave();
    return code(if (m.unlock()) .ok else .invalid);
}

inline fn syncCode(wake: Wake, deadline: i64) c_int {
    if (wake == .ready) return 0;
    return code(if (deadline == 0) .would_block else .timeout);
}

fn condWait(c: *sync.Cond, m: *sync.Mutex, deadline: i64) callconv(.c) c_int {
    const caller: Caller = .enter();
    defer caller.leave();
    const wake = c.wait(caller.g, m, limit(deadline)) orelse return code(.invalid);
    m.lock(caller.g);
    return syncCode(wake, deadline);
}

fn condSignal(c: *sync.Cond) callconv(.c) void {
    const caller: Caller = .enter();
    defer caller.leave();
    c.signal();
}

fn condBroadcast(c: *sync.Cond) callconv(.c) void {
    const caller: Caller = .enter();
    defer caller.leave();
    c.broadcast();
}

fn wgAdd(w: *sync.WaitGroup, delta: i64) callconv(.c) c_int {
    const caller: Caller = .enter();
    defer caller.leave();
    w.add(delta) catch return code(.invalid);
    return 0;
}

fn wgDone(w: *sync.WaitGroup) callconv(.c) c_int {
    return wgAdd(w, -1);
}

fn wgWait(w: *sync.WaitGroup, deadline: i64) callconv(.c) c_int {
    const caller: Caller = .enter();
    defer caller.leave();
    return syncCode(w.wait(caller.g, limit(deadline)), deadline);
}

fn semInit(s: *sync.Semaphore, permits: u64) callconv(.c) void {
    s.* = .{ .free = permits };
}

fn semAcquire(s: *sync.Semaphore, deadline: i64) callconv(.c) c_int {
    const caller: Caller = .enter();
    defer caller.leave();
    return syncCode(s.acquire(caller.g, 1, limit(deadline)), deadline);
}

fn semRelease(s: *sync.Semaphore) callconv(.c) c_int {
    const caller: Caller = .enter();
    defer caller.leave();
    return code(if (s.release(1)) .ok else .invalid);
}

// ---- timers ----

const CTimer = struct {
    timer: lane.Timers.Timer,
    function: Function,
    arg: ?*anyopaque,
    /// Orders `reset` and `stop` of one timer.
    lock: lane.Env.Lock = .{},

    fn fire(t: *lane.Timers.Timer) ?*G {
        const own: *CTimer = @alignCast(@fieldParentPtr("timer", t));
        if (!switching.goFromTimer(.{ .function = own.function, .arg = own.arg }))
            os.writeStderr("golibx: a timer fired without effect: no memory for its goroutine\n");
        return null;
    }
};

fn timerNew(function: ?Function, arg: ?*anyopaque) callconv(.c) ?*CTimer {
    const f = function orelse return null;
    const caller: Caller = .enter();
    defer caller.leave();
    const t = lane.gpa.create(CTimer) catch return null;
    t.* = .{ .timer = .{ .fire = CTimer.fire }, .function = f, .arg = arg };
    return t;
}

fn timerReset(t: ?*CTimer, when: i64) callconv(.c) c_int {
    const own = t orelse return code(.invalid);
    if (!lane.running()) return code(.not_running);
    const caller: Caller = .enter();
    defer caller.leave();
    own.lock.lock();
    defer own.lock.unlock();
    const pending = lane.Timers.remove(&own.timer);
    own.timer.when = @intCast(@max(0, when));
    const added = if (caller.g) |g|
        switching.addTimer(g.m.?, &own.timer)
    else
        switching.addTimerForeign(&own.timer);
    if (!added) return code(.no_memory);
    return @intFromBool(pending);
}

fn timerStop(t: ?*CTimer) callconv(.c) c_int {
    const own = t orelse return code(.invalid);
    const caller: Caller = .enter();
    defer caller.leave();
    own.lock.lock();
    defer own.lock.unlock();
    return @intFromBool(lane.Timers.remove(&own.timer));
}

fn timerFree(t: ?*CTimer) callconv(.c) void {
    const own = t orelse return;
    _ = timerStop(own);
    const caller: Caller = .enter();
    defer caller.leave();
    lane.gpa.destroy(own);
}

// ---- the network ----

fn fdOpen(fd: isize) callconv(.c) ?*netpoll.Handle {
    if (!lane.running()) {
        os.net.setErrno(@backingInt(std.c.E.INVAL));
        return null;
    }
    const caller: Caller = .enter();
    defer caller.leave();
    return openDesc(os.Handle.ofNumber(fd) orelse .none);
}

pub fn openDesc(fd: os.Handle) ?*netpoll.Handle {
    return netpoll.open(fd) catch |err| {
        os.net.setErrno(@backingInt(@as(std.c.E, switch (err) {
            error.OutOfMemory => .NOMEM,
            error.NotPollable => .PERM,
            error.BadDescriptor => .BADF,
            error.InUse => .EXIST,
            error.SystemLimit => .MFILE,
            error.Unsupported => .OPNOTSUPP,
        })));
        return null;
    };
}

fn fdWait(h: ?*netpoll.Handle, mode: c_int, deadline: i64) callconv(.c) c_int {
    const handle = h orelse return code(.invalid);
    if (mode != 1 and mode != 2) return code(.invalid);
    const caller: Caller = .enter();
    defer caller.leave();
    const d = netpoll.incref(handle) orelse return code(.closed);
    defer netpoll.decref(d);
    return code(switch (netpoll.wait(d, mode == 2, limit(deadline))) {
        .ready => .ok,
        .closed => .closed,
        .busy => .invalid,
        .timeout => if (deadline == 0) .would_block else .timeout,
    });
}

fn fdClose(h: ?*netpoll.Handle, close_file: c_int) callconv(.c) c_int {
    const handle = h orelse return code(.invalid);
    const caller: Caller = .enter();
    defer caller.leave();
    return code(if (netpoll.close(handle, close_file != 0)) .ok else .closed);
}

fn fdNumber(h: ?*netpoll.Handle) callconv(.c) isize {
    const handle = h orelse return code(.invalid);
    const caller: Caller = .enter();
    defer caller.leave();
    const d = netpoll.incref(handle) orelse return code(.closed);
    defer netpoll.decref(d);
    return @intCast(d.fd.number());
}

// ---- figures ----

pub const Counters = extern struct {
    size: u32,
    gomaxprocs: u32,
    goroutines: u64,
    spawns: u64,
    switches: u64,
    steals: u64,
    threads: u64,
    threads_idle: u64,
    thread_limit_hits: u64,
    handoffs: u64,
    retakes: u64,
    netpolls: u64,
    netpoll_wakeups: u64,
    timers: u64,
    timer_fires: u64,
    timer_steals: u64,
    preempt_requests: u64,
    preempt_yields: u64,
    preempt_klt: u64,
    preempt_coop: u64,
    preempt_refused_runtime: u64,
    preempt_refused_idle: u64,
    preempt_refused_stale: u64,
    preempt_refused_stack: u64,
    preempt_refused_thread: u64,
    preempt_refused_alone: u64,
    stacks: u64,
    stacks_free: u64,
    procs_idle: u64,
    threads_spinning: u64,
    queue_global: u64,
    queue_local: u64,
    events_recorded: u64,
    events_dropped: u64,
    preempt_refused_lock: u64,
};

/// Every counter, of a runtime that is on; zeroes otherwise.
pub fn collect() Counters {
    var out: Counters = std.mem.zeroes(Counters);
    out.size = @sizeOf(Counters);
    if (!lane.running()) return out;
    const s = &lane.sched;
    out.gomaxprocs = s.gomaxprocs.load(.monotonic);
    for (s.procs()) |each| {
        const c = &each.?.counters;
        inline for (.{
            .{ "spawns", "spawns" },
            .{ "switches", "switches" },
            .{ "steals", "steals" },
            .{ "netpoll_wakeups", "netpoll_wakeups" },
            .{ "timer_fires", "timer_fires" },
            .{ "timer_steals", "timer_steals" },
            .{ "preempt_yields", "preempt_yields" },
            .{ "preempt_klt", "preempt_klt" },
            .{ "preempt_coop", "preempt_coop" },
            .{ "preempt_refused_runtime", "refused_runtime" },
            .{ "preempt_refused_stale", "refused_stale" },
            .{ "preempt_refused_thread", "refused_thread" },
            .{ "preempt_refused_alone", "refused_alone" },
            .{ "preempt_refused_lock", "refused_lock" },
        }) |pair| @field(out, pair[0]) += @atomicLoad(u64, &@field(c, pair[1]), .monotonic);
        out.timers += each.?.timers.len.load(.monotonic);
        out.stacks_free += @atomicLoad(usize, &each.?.free.len, .monotonic);
        out.queue_local += each.?.runq.waiting();
    }
    out.spawns += lane.foreign_spawns.load(.monotonic);
    out.goroutines = switching.goroutineCount();
    out.threads = @atomicLoad(u32, &s.mcount, .monotonic);
    out.threads_idle = s.nmidle.load(.monotonic);
    out.thread_limit_hits = s.thread_limit_hits.load(.monotonic);
    out.handoffs = s.handoffs.load(.monotonic);
    out.retakes = s.retakes.load(.monotonic);
    out.netpolls = s.netpolls.load(.monotonic);
    out.preempt_requests = lane.interrupt.requests.load(.monotonic);
    out.preempt_refused_idle = lane.interrupt.refused_idle.load(.monotonic);
    out.preempt_refused_stack = lane.interrupt.refused_stack.load(.monotonic);
    out.stacks = @atomicLoad(usize, &lane.arena.fresh, .monotonic);
    out.stacks_free += lane.arena.freeCount();
    out.procs_idle = s.npidle.load(.monotonic);
    out.threads_spinning = s.nmspinning.load(.monotonic);
    out.queue_global = s.queue.len.load(.monotonic);
    const recorded = events.counted();
    out.events_recorded = recorded.recorded;
    out.events_dropped = recorded.dropped;
    return out;
}

fn stats(counters: ?*Counters) callconv(.c) c_int {
    const out = counters orelse return code(.invalid);
    const size = out.size;
    if (size < 8 or size > @sizeOf(Counters)) return code(.invalid);
    const caller: Caller = .enter();
    defer caller.leave();
    const full = collect();
    @memcpy(@as([*]u8, @ptrCast(out))[0..size], @as([*]const u8, @ptrCast(&full))[0..size]);
    out.size = size;
    return 0;
}

// ---- names ----

const tcp = @import("tcp.zig");

pub const exported = .{
    .golibx_abi_version = &abiVersion,
    .golibx_version = &versionText,
    .golibx_strerror = &errorText,
    .golibx_errno = &errnoOfThread,
    .golibx_start = &start,
    .golibx_stop = &stop,
    .golibx_run = &runMain,
    .golibx_gomaxprocs = &gomaxprocs,
    .golibx_nanotime = &nanotime,
    .golibx_go = &go,
    .golibx_gosched = &gosched,
    .golibx_goid = &goid,
    .golibx_sleep = &sleep,
    .golibx_self = &self,
    .golibx_park = &park,
    .golibx_ready = &ready,
    .golibx_lock_os_thread = &lockOsThread,
    .golibx_unlock_os_thread = &unlockOsThread,
    .golibx_entersyscall = &enterSyscall,
    .golibx_exitsyscall = &exitSyscall,
    .golibx_register_text = &registerText,
    .golibx_register_module = &registerModule,
    .golibx_chan_new = &chans.new,
    .golibx_chan_free = &chans.free,
    .golibx_chan_len = &chans.len,
    .golibx_chan_cap = &chans.cap,
    .golibx_chan_send = &chans.send,
    .golibx_chan_recv = &chans.recv,
    .golibx_chan_send_until = &chans.sendUntil,
    .golibx_chan_recv_until = &chans.recvUntil,
    .golibx_chan_close = &chans.close,
    .golibx_select = &chans.select,
    .golibx_mutex_lock = &mutexLock,
    .golibx_mutex_trylock = &mutexTryLock,
    .golibx_mutex_unlock = &mutexUnlock,
    .golibx_cond_wait = &condWait,
    .golibx_cond_signal = &condSignal,
    .golibx_cond_broadcast = &condBroadcast,
    .golibx_wg_add = &wgAdd,
    .golibx_wg_done = &wgDone,
    .golibx_wg_wait = &wgWait,
    .golibx_sem_init = &semInit,
    .golibx_sem_acquire = &semAcquire,
    .golibx_sem_release = &semRelease,
    .golibx_timer_new = &timerNew,
    .golibx_timer_reset = &timerReset,
    .golibx_timer_stop = &timerStop,
    .golibx_timer_free = &timerFree,
    .golibx_fd_open = &fdOpen,
    .golibx_fd_wait = &fdWait,
    .golibx_fd_close = &fdClose,
    .golibx_fd_number = &fdNumber,
    .golibx_tcp_listen = &tcp.listen,
    .golibx_tcp_accept = &tcp.accept,
    .golibx_tcp_dial = &tcp.dial,
    .golibx_tcp_port = &tcp.port,
    .golibx_read = &tcp.read,
    .golibx_write = &tcp.write,
    .golibx_stats = &stats,
};

comptime {
    for (@typeInfo(@TypeOf(exported)).@"struct".field_names) |name| {
        @export(@field(exported, name), .{ .name = name });
    }
}
