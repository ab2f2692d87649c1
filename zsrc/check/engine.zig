//! Runs one execution of a model: its threads are fibers on one thread of the system, and each
//! operation that others could see is preceded by `point`, which decides which thread goes on.
//!
//! A decision is a byte: a thread that runs, a thread whose buffered stores reach memory, or a
//! value that the model asked for. The list of them determines the execution, so that the searcher
//! (explorer.zig) varies a list and runs again from the start.
//!
//! Infinite executions are avoided as by CHESS (Musuvathi and Qadeer, "Fair stateless model
//! checking", PLDI 2008): a thread that spins twice lets all run that could have run between.
//!
//! Beside the interleaving there is a vector clock a thread, passed on by release and acquire as
//! the orderings of the atomics say (a store that is not a release passes nothing on). It tells
//! plain accesses, where the code names them by `Sim.reads` and `Sim.writes`, that no ordering
//! separates.
const std = @import("std");
const os = @import("../os/os.zig");
const arch = @import("../arch/arch.zig");
const Allocator = std.mem.Allocator;

pub const max_threads = 16;
/// Where `init` and `end` of a model run.
pub const main_thread = max_threads - 1;

/// What a thread knows of the others' time. Index: thread.
pub const Clock = [max_threads]u16;
const Vector = @Vector(max_threads, u16);
/// A set of threads.
pub const Mask = u16;
const Masks = [max_threads]Mask;

pub const stack_size = 256 * 1024;

/// Stacks beside those of threads, for models that switch between some of their own.
pub const spare_stacks = 8;
const all_stacks = max_threads + spare_stacks;

/// What the numbers of a schedule mean: below `flush` a thread, below `choice` the store buffer of
/// a thread, which is emptied, above it a value chosen.
pub const flush = max_threads;
pub const choice = 2 * max_threads;
pub const unknown = 255;

pub const Decision = struct { id: u8, index: u8, options: u8 };

pub const Operation = struct { name: []const u8 = "start", address: usize = 0, size: usize = 0 };

/// A store that has not reached memory.
pub const Store = struct {
    bytes: [16]u8 = undefined,
    len: u8,
    to: [*]u8,
    sync: *Clock,
    clock: Clock,
    /// The atomic or lock; a thread that waits for it goes on.
    variable: usize,
};

pub const Handler = *const fn (?*anyopaque) void;

pub const Thread = struct {
    name: []const u8 = "main",
    entry: *const fn (?*anyopaque) void = undefined,
    arg: ?*anyopaque = null,
    sp: usize = 0,
    clock: Clock = @splat(0),
    op: Operation = .{},
    /// What a blocked thread waits for: an address, 0 when it runs.
    waits: usize = 0,
    deadline: ?u64 = null,
    timed_out: bool = false,
    unparked: bool = false,
    /// What the last unpark passed on.
    parking: Clock = @splat(0),
    /// A signal on its way, which interrupts the thread as soon as it goes on.
    signal: ?Handler = null,
    signal_arg: ?*anyopaque = null,
    stores: [8]Store = undefined,
    stores_len: u8 = 0,
};

/// How far executions may stray from one thread after the other.
pub const Limits = struct {
    preemptions: u32,
    delays: u32,
    weak_failures: u32,
    max_steps: u32,
    /// A time-out that comes while others could go on counts as a preemption.
    patient: bool,
};

pub const Mode = union(enum) {
    /// Follows `decisions`, then takes the first of what there is.
    search,
    /// Follows these as far as possible, then takes the first of what there is.
    replay: []const u8,
    random: *Random,
};

/// Half of the random executions switch with a fixed probability at each point; the others give
/// each thread a priority and change it at few points (PCT, Burckhardt et al., ASPLOS 2010).
pub const Random = struct {
    source: std.Random,
    priorities: ?[2 * max_threads]u32 = null,
    changes: [3]u32 = @splat(0),
    stay: f32 = 0.5,
};

pub const Named = struct { address: usize, size: usize, name: []const u8 };
const Access = struct { writer: u8, written: u16, reads: Clock };

pub const Engine = struct {
    gpa: Allocator,
    /// What the model allocates; emptied before each execution.
    arena: std.heap.ArenaAllocator,
    stacks: [*]align(4096) u8,
    main_sp: usize = 0,
    /// On a stack of a thread of the model.
    inside: bool = false,
    limits: Limits = undefined,
    mode: Mode = .search,
    tracing: bool = false,

    threads: [max_threads]Thread = @splat(.{}),
    count: u8 = 0,
    current: u8 = main_thread,
    running: bool = false,
    runnable: Mask = 0,
    /// Asleep with a time-out, which may come at any time.
    timed: Mask = 0,
    finished: Mask = 0,
    yielded: Mask = 0,
    buffering: Mask = 0,
    last_enabled: Mask = 0,
    // For fairness, one set for each thread: which it waits for, and since its last yield: which
    // could run all the time, which it disabled, which ran.
    behind: Masks = @splat(0),
    enabled_since: Masks = @splat(0),
    disabled_since: Masks = @splat(0),
    scheduled_since: Masks = @splat(0),

    steps: u32 = 0,
    switches: u32 = 0,
    preemptions: u32 = 0,
    delays: u32 = 0,
    weak_failures: u32 = 0,
    /// A limit left something out.
    limited: bool = false,
    now: u64 = 1,
    position: u32 = 0,
    decisions: std.ArrayList(Decision) = .empty,
    failure: ?[]const u8 = null,
    /// Whether the model is at its end, where no thread can go on.
    rests: ?*const fn () bool = null,
    accesses: std.AutoHashMapUnmanaged(usize, Access) = .empty,
    names: std.ArrayList(Named) = .empty,
    trace: std.ArrayList(u8) = .empty,

    pub fn init(e: *Engine, gpa: Allocator) !void {
        const stacks = try os.reserve(all_stacks * stack_size);
        for (0..all_stacks) |i| {
            const base = @intFromPtr(stacks) + i * stack_size;
            try os.guard(@ptrFromInt(base), os.page_size);
            try os.openStack(base + os.page_size, base + stack_size);
        }
        e.* = .{ .gpa = gpa, .arena = .init(gpa), .stacks = stacks };
    }

    pub fn deinit(e: *Engine) void {
        os.release(e.stacks, all_stacks * stack_size);
        e.arena.deinit();
        e.decisions.deinit(e.gpa);
        e.accesses.deinit(e.gpa);
        e.names.deinit(e.gpa);
        e.trace.deinit(e.gpa);
        e.* = undefined;
    }

    /// Runs an execution from the start. `setUp` makes the model's threads, `end` checks.
    pub fn run(
        e: *Engine,
        mode: Mode,
        setUp: *const fn (?*anyopaque) void,
        end: *const fn (?*anyopaque) void,
    ) void {
        const fresh: Engine = .{
            .gpa = e.gpa,
            .arena = e.arena,
            .stacks = e.stacks,
            .limits = e.limits,
            .tracing = e.tracing,
            .mode = mode,
            .decisions = e.decisions,
            .accesses = e.accesses,
            .names = e.names,
            .trace = e.trace,
            .limited = e.limited,
            .rests = e.rests,
            .scheduled_since = @splat(std.math.maxInt(Mask)),
        };
        e.* = fresh;
        _ = e.arena.reset(.retain_capacity);
        e.accesses.clearRetainingCapacity();
        e.names.clearRetainingCapacity();
        e.trace.clearRetainingCapacity();
        if (mode != .search) e.decisions.clearRetainingCapacity();
        e.threads[main_thread].clock[main_thread] = 1;

        e.runOnMain(setUp);
        if (e.failure != null) return;
        e.running = true;
        e.last_enabled = e.runnable;
        if (e.next()) |first| {
            e.current = first;
            e.enterStack(first);
        }
        e.running = false;
        if (e.failure != null) return;
        e.current = main_thread;
        const clock = &e.threads[main_thread].clock;
        for (e.threads[0..e.count]) |t| clock.* = join(clock.*, t.clock);
        e.runOnMain(end);
    }

    /// On a stack that `fail` can leave.
    fn runOnMain(e: *Engine, function: *const fn (?*anyopaque) void) void {
        const t = &e.threads[main_thread];
        t.entry = function;
        e.prepare(main_thread);
        e.current = main_thread;
        e.enterStack(main_thread);
    }

    fn enterStack(e: *Engine, id: u8) void {
        e.inside = true;
        arch.switchTo(&e.main_sp, e.threads[id].sp);
        e.inside = false;
    }

    fn prepare(e: *Engine, id: u8) void {
        const base = @intFromPtr(e.stacks) + @as(usize, id) * stack_size;
        e.threads[id].sp = arch.prepare(
            base + os.page_size,
            base + stack_size,
            enter,
            arch.environment(),
        );
    }

    /// The first of the stacks that are no thread's.
    pub fn spareStacks(e: *const Engine) usize {
        return @intFromPtr(e.stacks) + max_threads * stack_size;
    }

    fn enter() callconv(.c) noreturn {
        const e = &the_engine;
        const t = &e.threads[e.current];
        t.entry(t.arg);
        if (!e.running) e.leave();
        const id = bit(e.current);
        e.runnable &= ~id;
        e.finished |= id;
        t.op = .{ .name = "finished" };
        if (e.tracing) e.say("finished", .{});
        e.reschedule();
        unreachable;
    }

    /// To the searcher, for good.
    fn leave(e: *Engine) noreturn {
        var unused: usize = undefined;
        arch.switchTo(&unused, e.main_sp);
        unreachable;
    }

    pub fn fail(e: *Engine, message: []const u8) noreturn {
        e.failure = message;
        e.leave();
    }

    pub fn failFormatted(e: *Engine, comptime format: []const u8, args: anytype) noreturn {
        e.fail(std.fmt.allocPrint(e.arena.allocator(), format, args) catch format);
    }

    pub fn spawn(
        e: *Engine,
        name: []const u8,
        entry: *const fn (?*anyopaque) void,
        arg: ?*anyopaque,
    ) u8 {
        if (e.count == main_thread) e.fail("more threads than the explorer knows");
        const id = e.count;
        e.count += 1;
        const parent = &e.threads[e.current];
        e.threads[id] = .{ .name = name, .entry = entry, .arg = arg, .clock = parent.clock };
        e.threads[id].clock[id] = 1;
        parent.clock[e.current] += 1;
        e.prepare(id);
        e.runnable |= bit(id);
        return id;
    }

    pub inline fn self(e: *Engine) *Thread {
        return &e.threads[e.current];
    }

    /// The running thread is about to do `op`: which thread goes on first?
    pub fn point(e: *Engine, op: Operation) void {
        if (!e.running) return;
        e.self().op = op;
        e.steps += 1;
        if (e.steps > e.limits.max_steps) e.fail("no end within the steps allowed: a livelock?");
        e.reschedule();
        e.handleSignals();
    }

    /// A signal for the thread, which handles it on whatever stack it is on then. Of two that come
    /// before it does, one is lost, as the system's are. False if it has finished.
    pub fn signal(e: *Engine, id: u8, handler: Handler, arg: ?*anyopaque) bool {
        if (e.finished & bit(id) != 0) return false;
        const t = &e.threads[id];
        t.signal = handler;
        t.signal_arg = arg;
        // It is interrupted where it waits.
        if (t.waits != 0) {
            t.waits = 0;
            e.timed &= ~bit(id);
            e.runnable |= bit(id);
        }
        return true;
    }

    fn handleSignals(e: *Engine) void {
        while (e.self().signal) |handler| {
            const t = e.self();
            t.signal = null;
            if (e.tracing) e.say("is interrupted", .{});
            handler(t.signal_arg);
        }
    }

    /// The running thread cannot go on before `wake` of the same address, or the time-out. Returns
    /// false for the latter.
    pub fn block(e: *Engine, address: usize, timeout_ns: ?u64) bool {
        if (!e.running) e.fail("init and end of a model cannot block");
        const t = e.self();
        const id = bit(e.current);
        t.waits = address;
        t.timed_out = false;
        e.runnable &= ~id;
        if (timeout_ns) |ns| {
            t.deadline = e.now +| ns;
            e.timed |= id;
            e.letPass();
        }
        if (e.tracing) e.say("  waits", .{});
        e.reschedule();
        const timed_out = t.timed_out;
        e.handleSignals();
        return !timed_out;
    }

    /// All that wait for the address; they look again.
    pub fn wake(e: *Engine, address: usize) void {
        for (e.threads[0..e.count], 0..) |*t, i| {
            if (t.waits != address) continue;
            t.waits = 0;
            e.timed &= ~bit(@intCast(i));
            e.runnable |= bit(@intCast(i));
        }
    }

    /// The running thread can do nothing useful before another did something.
    pub fn spin(e: *Engine) void {
        if (!e.running) e.fail("init or end of a model spins");
        e.drain();
        for (0..e.count) |i| {
            if (e.runnable & bit(@intCast(i)) == 0) e.drainOf(@intCast(i));
        }
        e.yielded |= bit(e.current);
        e.letPass();
        e.point(.{ .name = "spins" });
        if (e.tracing) e.say("spins", .{});
    }

    /// The end of a window in the sense of fair scheduling.
    fn letPass(e: *Engine) void {
        const t = e.current;
        const starved = (e.enabled_since[t] | e.disabled_since[t]) & ~e.scheduled_since[t];
        e.behind[t] |= starved & ~bit(t);
        e.enabled_since[t] = e.runnable | e.timed;
        e.disabled_since[t] = 0;
        e.scheduled_since[t] = 0;
    }

    fn reschedule(e: *Engine) void {
        const from = e.current;
        const to = e.next() orelse e.leave();
        if (to == from) return;
        e.current = to;
        e.switches += 1;
        arch.switchTo(&e.threads[from].sp, e.threads[to].sp);
    }

    /// Null: all have finished, or none can go on.
    fn next(e: *Engine) ?u8 {
        const current = e.current;
        const disabled = e.last_enabled & ~(e.runnable | e.timed);
        if (current != main_thread) e.disabled_since[current] |= disabled;
        var flushed: Mask = 0;
        while (true) {
            var allowed = e.mayRun();
            const early = if (e.limits.patient and allowed & ~e.timed != 0)
                allowed & e.timed
            else
                0;
            if (early != 0 and !e.mayTimeOut()) allowed &= ~early;
            if (allowed == 0 and e.buffering == 0) {
                if (@popCount(e.finished) != e.count) e.deadlock();
                return null;
            }
            const could_stay = allowed & bit(current) != 0;
            const may_switch = !could_stay or e.preemptions < e.limits.preemptions;

            var options: [2 * max_threads]u8 = undefined;
            var n: usize = 0;
            var threads = allowed;
            // Whose stores have just become visible goes on last, or it could have gone on before.
            if (may_switch and threads & ~flushed != 0) threads &= ~flushed;
            if (threads & bit(current) != 0) {
                options[0] = current;
                n = 1;
                threads &= ~bit(current);
            }
            if (!may_switch) {
                if (threads != 0) e.limited = true;
                threads = 0;
            }
            while (threads != 0) : (threads &= threads - 1) {
                options[n] = @ctz(threads);
                n += 1;
            }
            var buffers = e.buffering;
            while (buffers != 0) : (buffers &= buffers - 1) {
                const id: u8 = @ctz(buffers);
                // Nobody would see a difference before another one runs.
                if (allowed != 0 and id == current and !may_switch) continue;
                options[n] = flush + id;
                n += 1;
            }
            const id = options[e.decide(options[0..n], could_stay)];
            if (id >= flush) {
                e.drainOf(id - flush);
                flushed |= bit(id - flush);
                e.yielded = 0;
                continue;
            }
            if ((could_stay and id != current) or early & bit(id) != 0) e.preemptions += 1;
            e.letRun(id);
            return id;
        }
    }

    /// Whether one may time out while others could go on.
    fn mayTimeOut(e: *Engine) bool {
        switch (e.mode) {
            .random => |r| return r.source.uintLessThan(u32, 8) == 0,
            else => if (e.preemptions < e.limits.preemptions) return true,
        }
        e.limited = true;
        return false;
    }

    /// The threads that could go on and need not let others pass. None, though one spins, as long
    /// as there are stores that it may be waiting for.
    fn mayRun(e: *Engine) Mask {
        const enabled = e.runnable | e.timed;
        var allowed = enabled;
        if (@reduce(.Or, @as(Vector, e.behind)) != 0) {
            for (0..e.count) |i| {
                if (e.behind[i] & enabled != 0) allowed &= ~bit(@intCast(i));
            }
        }
        if (allowed & ~e.yielded != 0) return allowed & ~e.yielded;
        return if (e.buffering != 0) 0 else allowed;
    }

    fn letRun(e: *Engine, id: u8) void {
        const enabled = e.runnable | e.timed;
        const this = bit(id);
        if (e.timed & this != 0) e.timeOut(id);
        e.yielded = 0;
        e.behind = @as(Vector, e.behind) & @as(Vector, @splat(~this));
        e.enabled_since = @as(Vector, e.enabled_since) & @as(Vector, @splat(enabled));
        e.scheduled_since = @as(Vector, e.scheduled_since) | @as(Vector, @splat(this));
        e.last_enabled = enabled;
    }

    fn timeOut(e: *Engine, id: u8) void {
        const t = &e.threads[id];
        e.now = @max(e.now, t.deadline.?);
        e.timed &= ~bit(id);
        e.runnable |= bit(id);
        t.waits = 0;
        t.timed_out = true;
    }

    fn deadlock(e: *Engine) void {
        e.running = false;
        if (e.rests) |rests| if (rests()) return;
        var text: std.ArrayList(u8) = .empty;
        const gpa = e.arena.allocator();
        text.appendSlice(gpa, "lost wake-up or deadlock:") catch {};
        for (e.threads[0..e.count], 0..) |t, i| {
            if (e.finished & bit(@intCast(i)) != 0) continue;
            text.print(gpa, " {s} waits in {s};", .{ t.name, t.op.name }) catch {};
        }
        e.failure = text.items;
    }

    /// One of `options`, which are ids, by the mode.
    fn decide(e: *Engine, options: []const u8, may_stay: bool) usize {
        const position = e.position;
        e.position += 1;
        const index: usize = switch (e.mode) {
            .search => {
                if (position < e.decisions.items.len) {
                    const d = &e.decisions.items[position];
                    const same = d.options == options.len and d.index < options.len and
                        (d.id == unknown or d.id == options[d.index]);
                    if (!same) e.fail(
                        "the model decides something by itself: the same choices gave another run",
                    );
                    d.id = options[d.index];
                    return d.index;
                }
                return e.record(options, 0);
            },
            .replay => |schedule| if (position < schedule.len)
                std.mem.indexOfScalar(u8, options, schedule[position]) orelse 0
            else
                0,
            .random => |r| e.randomly(r, options, may_stay),
        };
        return e.record(options, index);
    }

    fn record(e: *Engine, options: []const u8, index: usize) usize {
        e.decisions.append(e.gpa, .{
            .id = options[index],
            .index = @intCast(index),
            .options = @intCast(options.len),
        }) catch @panic("out of memory");
        return index;
    }

    fn randomly(e: *Engine, r: *Random, options: []const u8, may_stay: bool) usize {
        if (options.len == 1) return 0;
        if (options[0] >= choice) return r.source.uintLessThan(usize, options.len);
        const priorities = &(r.priorities orelse {
            if (may_stay and r.source.float(f32) < r.stay) return 0;
            return r.source.uintLessThan(usize, options.len);
        });
        for (r.changes, 0..) |at, i| {
            if (at == e.steps and e.current != main_thread)
                @constCast(priorities)[e.current] = @intCast(i);
        }
        var best: usize = 0;
        for (options, 0..) |id, i| {
            if (priorities[id] > priorities[options[best]]) best = i;
        }
        return best;
    }

    /// A value below n that nothing determines.
    pub fn choose(e: *Engine, n: u32) u32 {
        std.debug.assert(n > 0 and n <= 128);
        if (n == 1) return 0;
        if (!e.running) e.fail("a choice in init or end of a model");
        var options: [128]u8 = undefined;
        for (options[0..n], 0..) |*o, i| o.* = @intCast(choice + i);
        return @intCast(e.decide(options[0..n], false));
    }

    /// Whether something unlikely happens, of which an execution has a limited number.
    pub fn happens(e: *Engine, used: *u32, limit: u32) bool {
        if (!e.running or limit == 0) return false;
        if (used.* >= limit) {
            e.limited = true;
            return false;
        }
        if (e.choose(2) == 0) return false;
        used.* += 1;
        return true;
    }

    /// Whether a store that is not sequentially consistent stays out of memory for a while.
    pub fn delayed(e: *Engine) bool {
        if (e.self().stores_len > 0) return true; // they leave in order
        return e.happens(&e.delays, e.limits.delays);
    }

    pub fn buffer(e: *Engine, store: Store) void {
        const t = e.self();
        if (t.stores_len == t.stores.len) e.flushOne(e.current);
        t.stores[t.stores_len] = store;
        t.stores_len += 1;
        e.buffering |= bit(e.current);
    }

    fn flushOne(e: *Engine, id: u8) void {
        const t = &e.threads[id];
        const s = &t.stores[0];
        @memcpy(s.to[0..s.len], s.bytes[0..s.len]);
        s.sync.* = s.clock;
        e.wake(s.variable);
        if (e.tracing) {
            var name: [80]u8 = undefined;
            const to = e.nameOf(s.variable, null, &name);
            e.say("  {s}'s store to {s} reaches memory", .{ t.name, to });
        }
        std.mem.copyForwards(Store, t.stores[0 .. t.stores_len - 1], t.stores[1..t.stores_len]);
        t.stores_len -= 1;
        if (t.stores_len == 0) e.buffering &= ~bit(id);
    }

    /// What a fence does.
    pub inline fn drain(e: *Engine) void {
        if (e.buffering != 0) e.drainOf(e.current);
    }

    fn drainOf(e: *Engine, id: u8) void {
        while (e.threads[id].stores_len > 0) e.flushOne(id);
    }

    pub inline fn acquire(e: *Engine, sync: Clock) void {
        const t = e.self();
        t.clock = join(t.clock, sync);
    }

    /// What the running thread passes on; later accesses of it are not covered.
    pub inline fn release(e: *Engine) Clock {
        const t = e.self();
        const clock = t.clock;
        t.clock[e.current] += 1;
        return clock;
    }

    pub fn access(e: *Engine, address: usize, comptime writes: bool) void {
        const known = e.accesses.getOrPut(e.gpa, address) catch @panic("out of memory");
        const a = known.value_ptr;
        if (!known.found_existing)
            a.* = .{ .writer = main_thread, .written = 0, .reads = @splat(0) };
        const clock = e.self().clock;
        const seen = a.written <= clock[a.writer];
        const what = if (writes) "writes" else "reads";
        if (e.tracing) {
            var name: [80]u8 = undefined;
            e.say("  {s} plain {s}", .{ what, e.nameOf(address, null, &name) });
        }
        if (!seen or (writes and @reduce(.Or, @as(Vector, a.reads) > @as(Vector, clock))))
            e.failFormatted("no ordering separates what {s} {s} from another's access", .{
                e.self().name, what,
            });
        if (writes) {
            a.* = .{ .writer = e.current, .written = clock[e.current], .reads = @splat(0) };
        } else a.reads[e.current] = clock[e.current];
    }

    /// A line of the trace.
    pub fn say(e: *Engine, comptime format: []const u8, args: anytype) void {
        e.trace.print(e.gpa, "{d:>5}  {s:<12} ", .{ e.steps, e.self().name }) catch {};
        e.trace.print(e.gpa, format ++ "\n", args) catch {};
    }

    /// How the trace calls what lies at the address. With a size, what has just that size.
    pub fn nameOf(e: *Engine, address: usize, size: ?usize, room: []u8) []const u8 {
        var found: ?Named = null;
        for (e.names.items) |named| {
            if (named.address != address) continue;
            if (size) |s| if (s != named.size) continue;
            found = named;
        }
        if (found) |named| return named.name;
        return std.fmt.bufPrint(room, "@{x}", .{address & 0xffffff}) catch "?";
    }
};

/// The only one: fibers have no other way to find it.
pub var the_engine: Engine = undefined;

pub inline fn bit(id: u8) Mask {
    return @as(Mask, 1) << @intCast(id);
}

/// What is known to whoever knows both.
pub inline fn join(a: Clock, b: Clock) Clock {
    return @max(@as(Vector, a), @as(Vector, b));
}
