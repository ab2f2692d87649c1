//! `zig build check`: explores every model, then every model with each bug that it has to find.
const std = @import("std");
const os = @import("../os/os.zig");
const check = @import("explorer.zig");
const all = @import("models/all.zig");
const build_options = @import("check_options");

pub const panic = check.panic;

const help =
    \\Explores the interleavings of golibx's concurrent parts.
    \\
    \\  check [options]
    \\    --depth N       preemptions that an execution may have at most (default: by model)
    \\    --seconds S     how long a model may take for its exhaustive part (default: 20)
    \\    --random N      random executions a model (default: 2000)
    \\    --seed N        of the random executions (default: 1)
    \\    --only NAME     the models whose name contains NAME
    \\    --bug NAME      with this bug planted in them only, shown with its trace
    \\    --schedule S    runs the schedule that a failure was printed with, and shows its trace
    \\    --help
    \\
    \\Prints a line a model, and one a planted bug; the trace of a failure; last which models they
    \\were (parts, or whole lanes) and `N passed, N failed`.
    \\Exits with 1 if something failed, with 2 if the options are wrong.
    \\
;

var settings: struct {
    depth: ?u32 = null,
    seconds: ?f64 = null,
    random: ?u32 = null,
    seed: ?u64 = null,
    only: []const u8 = "",
    bug: ?[]const u8 = null,
    schedule: ?[]const u8 = null,
} = .{};

var passed: u32 = 0;
var failed: u32 = 0;

pub fn main(init: std.process.Init) !u8 {
    var args = try init.minimal.args.iterateAllocator(init.gpa);
    defer args.deinit();
    _ = args.skip();
    while (args.next()) |arg| {
        if (std.mem.eql(u8, arg, "--help")) {
            print(help, .{});
            return 0;
        }
        const value = args.next() orelse return wrong(arg, "needs a value");
        set(arg, value) catch return wrong(arg, "is unknown, or its value is of no use");
    }
    @setEvalBranchQuota(200_000);
    const parts = comptime std.mem.eql(u8, build_options.group, "parts");
    inline for (if (parts) all.of_the_explorer ++ all.of_the_runtime else all.of_the_lane) |entry| {
        // Those of this build only, for work on them: they compile in seconds.
        if (comptime std.mem.indexOf(u8, entry.name, build_options.only) == null) continue;
        if (std.mem.indexOf(u8, entry.name, settings.only) != null) try runEntry(init.gpa, entry);
    }
    print("{s}: {d} passed, {d} failed\n", .{ build_options.group, passed, failed });
    return @intFromBool(failed > 0);
}

fn set(name: []const u8, value: []const u8) !void {
    const s = &settings;
    if (std.mem.eql(u8, name, "--depth")) {
        s.depth = try std.fmt.parseInt(u32, value, 10);
    } else if (std.mem.eql(u8, name, "--seconds")) {
        s.seconds = try std.fmt.parseFloat(f64, value);
    } else if (std.mem.eql(u8, name, "--random")) {
        s.random = try std.fmt.parseInt(u32, value, 10);
    } else if (std.mem.eql(u8, name, "--seed")) {
        s.seed = try std.fmt.parseInt(u64, value, 10);
    } else if (std.mem.eql(u8, name, "--only")) {
        s.only = value;
    } else if (std.mem.eql(u8, name, "--bug")) {
        s.bug = value;
    } else if (std.mem.eql(u8, name, "--schedule")) {
        s.schedule = value;
    } else return error.Unknown;
}

fn wrong(argument: []const u8, why: []const u8) u8 {
    print("check: {s} {s}; see --help\n", .{ argument, why });
    return 2;
}

fn runEntry(gpa: std.mem.Allocator, comptime entry: all.Entry) !void {
    var options = entry.options;
    if (settings.depth) |n| options.preemptions = n;
    if (settings.seconds) |s| {
        options.max_seconds = s;
        options.max_executions = std.math.maxInt(u64);
    }
    if (settings.random) |n| options.random_runs = n;
    if (settings.seed) |n| options.seed = n;
    options.schedule = settings.schedule;
    if (settings.bug == null) try runModel(gpa, entry, options);
    inline for (entry.plants) |plant| {
        if (settings.bug == null or std.mem.eql(u8, settings.bug.?, @tagName(plant.bug)))
            try runPlant(gpa, entry, plant, options);
    }
}

fn runModel(gpa: std.mem.Allocator, comptime entry: all.Entry, options: check.Options) !void {
    var report = try check.explore(gpa, entry.Model(check.Env(.{})), options);
    defer report.deinit();
    // What was asked for on the command line goes as far as it goes.
    const whole = settings.depth != null or settings.seconds != null or options.schedule != null or
        switch (report.coverage) {
            .none => false,
            .all => true,
            .preemptions => |n| n == options.preemptions,
        };
    const ok = report.failure == null and whole;
    count(ok);
    printStart(ok, entry.name, report);
    print("{d} executions, longest {d} steps", .{ report.executions, report.longest });
    switch (report.coverage) {
        .none => {},
        .all => print(", all schedules", .{}),
        .preemptions => |n| print(", all with at most {d} preemptions", .{n}),
    }
    if (options.delays > 0) print(", {d} late stores", .{options.delays});
    if (options.weak_failures > 0) print(", {d} spurious failures", .{options.weak_failures});
    if (!whole and report.failure == null) print(", which is not all that it should", .{});
    print("\n", .{});
    if (report.failure) |f| printFailure(f);
}

fn runPlant(
    gpa: std.mem.Allocator,
    comptime entry: all.Entry,
    comptime plant: all.Plant,
    given: check.Options,
) !void {
    const Model = entry.Model(check.Env(.{ .planted = plant.bug }));
    var options = given;
    if (plant.preemptions) |n| options.preemptions = @max(n, options.preemptions);
    var report = try check.explore(gpa, Model, options);
    defer report.deinit();
    const why_not: ?[]const u8 = if (report.failure) |f| why: {
        if (std.mem.indexOf(u8, f.message, plant.expects) == null)
            break :why "another failure than expected";
        var again = options;
        again.schedule = f.schedule;
        var replayed = try check.explore(gpa, Model, again);
        defer replayed.deinit();
        const second = replayed.failure orelse break :why "its schedule does not fail again";
        if (!std.mem.eql(u8, second.message, f.message))
            break :why "its schedule fails in another way";
        break :why null;
    } else "not found";
    count(why_not == null);
    printStart(why_not == null, entry.name ++ ": " ++ @tagName(plant.bug), report);
    if (why_not) |why| print("{s}, ", .{why});
    print("{d} executions", .{report.executions});
    if (report.failure) |f| print(", {d} preemptions, {s}", .{ f.preemptions, f.schedule });
    print("\n", .{});
    if (report.failure) |f| if (why_not != null or settings.bug != null) printFailure(f);
}

fn count(ok: bool) void {
    if (ok) passed += 1 else failed += 1;
}

fn printStart(ok: bool, name: []const u8, report: check.Report) void {
    print("{s:<6} {s:<40} {d:>6.2} s  ", .{ if (ok) "ok" else "FAILED", name, report.seconds });
}

fn printFailure(f: check.Failure) void {
    print("  {s}\n", .{f.message});
    if (f.seed) |seed| print("  found by the random run of seed {d}\n", .{seed});
    print("  {d} preemptions; to repeat: --schedule '{s}'\n", .{ f.preemptions, f.schedule });
    write(f.trace);
}

/// A line goes out as a whole: another program prints beside this one.
fn print(comptime format: []const u8, args: anytype) void {
    const text = std.fmt.bufPrint(line.buffer[line.len..], format, args) catch long: {
        write(line.buffer[0..line.len]);
        line.len = 0;
        break :long std.fmt.bufPrint(&line.buffer, "(too long to print)\n", .{}) catch unreachable;
    };
    line.len += text.len;
    if (!std.mem.endsWith(u8, text, "\n")) return;
    write(line.buffer[0..line.len]);
    line.len = 0;
}

var line: struct { buffer: [16 * 1024]u8 = undefined, len: usize = 0 } = .{};

fn write(text: []const u8) void {
    var rest = text;
    while (rest.len > 0) {
        const n = std.c.write(1, rest.ptr, rest.len);
        if (n <= 0) return;
        rest = rest[@intCast(n)..];
    }
}
