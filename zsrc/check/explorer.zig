//! The interleaving explorer: runs a small model of concurrent code under all schedules that have
//! at most so many preemptions, then under random ones; finds lost wake-ups, deadlocks, livelocks
//! and failed expectations, and gives the smallest schedule that it knows with a readable trace.
//! In the spirit of CHESS (Musuvathi et al., OSDI 2008): most bugs need two preemptions or fewer.
//!
//! A model is a struct, made anew for each execution. It is generic over the environment, with
//! which it instantiates the code under test:
//!
//!     fn Handoff(comptime Sim: type) type {
//!         return struct {
//!             value: u32 = 0,
//!             ready: Sim.Atomic(bool) = .init(false),
//!             pub const threads = .{ .{ "writer", write }, .{ "reader", read } };
//!             fn write(m: *@This()) void {
//!                 Sim.writes(&m.value); // of a plain field; tells that an ordering is missing
//!                 m.value = 7;
//!                 m.ready.store(true, .release);
//!             }
//!             fn read(m: *@This()) void {
//!                 while (!m.ready.load(.acquire)) Sim.spin();
//!                 check.expect(m.value == 7, "the value comes with its flag");
//!             }
//!         };
//!     }
//!     const report = try check.explore(gpa, Handoff(check.Env(.{})), .{ .preemptions = 3 });
//!
//! `pub fn init(m: *Model, gpa: Allocator) !void` prepares, before there are threads; `pub fn
//! end(m: *Model) void` checks, after all have finished; both optional. That no thread can go on is
//! a failure, unless `pub fn rests(m: *Model) bool` says that it is the end. What `gpa` gives is
//! freed after each execution, and `Sim.gpa()` is the same one. A panic of the code under test is a
//! failure of the model, if the root file has `pub const panic = check.panic`.
//!
//! What is modelled: all interleavings of the atomics, locks and notes of the environment (plain
//! accesses happen together with the operation before them); time-outs, at any time; with
//! `delays`, stores that others see late (total store order, x86's: what is missing between a
//! store and a later load is found); with `weak_failures`, spurious failures of cmpxchgWeak.
//! Orderings are checked only where code names its plain accesses by `Env.reads` and
//! `Env.writes`: two that no release and acquire separate are a failure, in whatever order they
//! came. Signals, where a model sends some, are handled before the next operation of the thread.
//! What is not modelled: reorderings beyond total store order, as of two loads or two stores on
//! AArch64; a signal between two plain accesses; and what needs more preemptions, but for what the
//! random runs happen to find.
const std = @import("std");
const os = @import("../os/os.zig");
const engine = @import("engine.zig");
const sim = @import("sim.zig");
const shrink = @import("shrink.zig");
const Allocator = std.mem.Allocator;
const Engine = engine.Engine;

pub const Env = sim.Env;
pub const panic = std.debug.FullPanic(onPanic);

pub const Options = struct {
    /// Switches away from a thread that could have gone on, at most, an execution.
    preemptions: u32 = 2,
    /// Stores that stay in a thread's buffer, at most, an execution.
    delays: u32 = 0,
    /// cmpxchgWeak that fail without a reason, at most, an execution.
    weak_failures: u32 = 0,
    /// An execution that is longer fails.
    max_steps: u32 = 2000,
    /// Time-outs that come while others could go on count as preemptions: for models with a thread
    /// that looks every now and then.
    patient: bool = false,
    /// After which the exhaustive part stops.
    max_executions: u64 = 3_000_000,
    max_seconds: f64 = 20,
    random_runs: u32 = 2000,
    seed: u64 = 1,
    /// Runs this schedule only, as printed by a failure.
    schedule: ?[]const u8 = null,
};

pub const Failure = struct {
    message: []const u8,
    /// To be given as `Options.schedule`.
    schedule: []const u8,
    trace: []const u8,
    preemptions: u32,
    /// Of the random run that found it; null for the exhaustive part.
    seed: ?u64,
};

pub const Report = struct {
    executions: u64 = 0,
    /// Steps of the longest execution.
    longest: u32 = 0,
    seconds: f64 = 0,
    coverage: Coverage = .none,
    failure: ?Failure = null,
    arena: std.heap.ArenaAllocator,

    pub fn deinit(r: *Report) void {
        r.arena.deinit();
    }
};

/// What was left out.
pub const Coverage = union(enum) {
    none,
    /// Every schedule with so many preemptions was run.
    preemptions: u32,
    /// Every schedule was run.
    all,
};

/// Fails the model unless `ok`.
pub fn expect(ok: bool, message: []const u8) void {
    if (!ok) engine.the_engine.fail(message);
}

pub fn fail(comptime format: []const u8, args: anytype) noreturn {
    engine.the_engine.failFormatted(format, args);
}

var exploring = false;

fn onPanic(message: []const u8, address: ?usize) noreturn {
    if (exploring and engine.the_engine.inside)
        engine.the_engine.failFormatted("panic: {s}", .{message});
    std.debug.defaultPanic(message, address);
}

/// Searches for a schedule under which the model fails.
pub fn explore(gpa: Allocator, comptime Model: type, options: Options) !Report {
    const e = &engine.the_engine;
    try e.init(gpa);
    defer e.deinit();
    exploring = true;
    defer exploring = false;

    var search: Search = .{
        .e = e,
        .options = options,
        .setUp = Glue(Model).setUp,
        .end = Glue(Model).end,
        .start_ns = os.nanotime(),
        .report = .{ .arena = .init(gpa) },
    };
    errdefer search.report.deinit();
    e.rests = if (@hasDecl(Model, "rests")) Glue(Model).rests else null;
    e.limits = .{
        .preemptions = 0,
        .delays = options.delays,
        .weak_failures = options.weak_failures,
        .max_steps = options.max_steps,
        .patient = options.patient,
    };
    if (options.schedule) |text| {
        const schedule = try shrink.parse(gpa, text);
        defer gpa.free(schedule);
        e.limits.preemptions = std.math.maxInt(u32);
        search.run(.{ .replay = schedule });
        if (e.failure != null) try search.explain(schedule, null);
    } else try search.all();
    search.report.seconds = search.elapsed();
    return search.report;
}

/// The model's functions as the engine calls them.
fn Glue(comptime Model: type) type {
    return struct {
        var model: *Model = undefined;

        fn setUp(_: ?*anyopaque) void {
            const e = &engine.the_engine;
            const gpa = e.arena.allocator();
            model = gpa.create(Model) catch @panic("out of memory");
            model.* = .{};
            if (e.tracing) describe(Model, model, "");
            if (@hasDecl(Model, "init")) {
                model.init(gpa) catch |err| e.failFormatted("init: {t}", .{err});
            }
            inline for (Model.threads) |thread| {
                const T = struct {
                    fn entry(raw: ?*anyopaque) void {
                        thread[1](@as(*Model, @ptrCast(@alignCast(raw.?))));
                    }
                };
                _ = e.spawn(thread[0], T.entry, model);
            }
        }

        fn rests() bool {
            return model.rests();
        }

        fn end(_: ?*anyopaque) void {
            if (@hasDecl(Model, "end")) model.end();
        }
    };
}

/// Tells the trace what the fields of a variable are called, if there is a trace.
pub fn nameFields(pointer: anytype, name: []const u8) void {
    if (engine.the_engine.tracing) describe(@TypeOf(pointer.*), pointer, name);
}

fn describe(comptime T: type, pointer: *T, name: []const u8) void {
    const e = &engine.the_engine;
    if (name.len > 0) e.names.append(e.gpa, .{
        .address = @intFromPtr(pointer),
        .size = @sizeOf(T),
        .name = name,
    }) catch return;
    const gpa = e.arena.allocator();
    switch (@typeInfo(T)) {
        .@"struct" => |s| {
            if (@hasDecl(T, "simulated") or s.layout == .@"packed") return;
            inline for (s.field_names, s.field_types) |field, Field| {
                if (@sizeOf(Field) > 0) {
                    const path = if (name.len == 0) field else //
                        std.fmt.allocPrint(gpa, "{s}.{s}", .{ name, field }) catch return;
                    describe(Field, &@field(pointer, field), path);
                }
            }
        },
        .array => |a| if (@typeInfo(a.child) == .@"struct" or @typeInfo(a.child) == .array) {
            for (pointer, 0..) |*item, i| {
                const path = std.fmt.allocPrint(gpa, "{s}[{d}]", .{ name, i }) catch return;
                describe(a.child, item, path);
            }
        },
        else => {},
    }
}

pub const Search = struct {
    e: *Engine,
    options: Options,
    setUp: *const fn (?*anyopaque) void,
    end: *const fn (?*anyopaque) void,
    start_ns: u64,
    report: Report,

    pub fn run(s: *Search, mode: engine.Mode) void {
        s.e.run(mode, s.setUp, s.end);
        s.report.executions += 1;
        s.report.longest = @max(s.report.longest, s.e.steps);
    }

    fn elapsed(s: *const Search) f64 {
        return @as(f64, @floatFromInt(os.nanotime() - s.start_ns)) / std.time.ns_per_s;
    }

    fn all(s: *Search) !void {
        for (0..s.options.preemptions + 1) |bound| {
            s.e.limits.preemptions = @intCast(bound);
            s.e.limited = false;
            if (!s.exhaust()) break;
            if (s.e.failure != null) return s.explain(null, null);
            s.report.coverage = .{ .preemptions = @intCast(bound) };
            if (!s.e.limited) {
                s.report.coverage = .all;
                return;
            }
        }
        s.e.limits.preemptions = std.math.maxInt(u32);
        for (0..s.options.random_runs) |i| {
            const seed = s.options.seed +% i;
            s.runRandom(seed);
            if (s.e.failure != null) return s.explain(null, seed);
        }
    }

    /// Every schedule with the preemptions allowed, depth first. False if there were too many.
    fn exhaust(s: *Search) bool {
        const decisions = &s.e.decisions;
        decisions.clearRetainingCapacity();
        while (true) {
            s.run(.search);
            if (s.e.failure != null) return true;
            while (decisions.getLastOrNull()) |last| {
                if (last.index + 1 < last.options) break;
                _ = decisions.pop();
            }
            if (decisions.items.len == 0) return true;
            const last = &decisions.items[decisions.items.len - 1];
            last.index += 1;
            last.id = engine.unknown;
            if (s.report.executions >= s.options.max_executions) return false;
            const look = s.report.executions % 256 == 0;
            if (look and s.elapsed() > s.options.max_seconds) return false;
        }
    }

    fn runRandom(s: *Search, seed: u64) void {
        var prng: std.Random.DefaultPrng = .init(seed);
        var r: engine.Random = .{ .source = prng.random() };
        if (seed % 2 == 0) {
            r.priorities = @splat(0);
            for (&r.priorities.?) |*p| p.* = 16 + r.source.uintLessThan(u32, 1 << 20);
            for (&r.changes) |*c| c.* = r.source.uintLessThan(u32, s.report.longest + 1);
        } else {
            const stays = [_]f32{ 0, 0.5, 0.8, 0.95 };
            r.stay = stays[r.source.uintLessThan(usize, stays.len)];
        }
        s.run(.{ .random = &r });
    }

    /// Makes the failure of the last run, or of this schedule, readable.
    fn explain(s: *Search, given: ?[]const u8, seed: ?u64) !void {
        const e = s.e;
        const gpa = s.report.arena.allocator();
        const message = try gpa.dupe(u8, e.failure.?);
        const executions = s.report.executions;
        const schedule = given orelse try shrink.smallest(s, gpa, message);
        e.tracing = true;
        s.run(.{ .replay = schedule });
        e.tracing = false;
        s.report.executions = executions;
        s.report.failure = .{
            .message = message,
            .schedule = try shrink.format(gpa, schedule),
            .trace = try gpa.dupe(u8, e.trace.items),
            .preemptions = e.preemptions,
            .seed = seed,
        };
    }
};
