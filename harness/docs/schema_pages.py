"""The pages of study files, recipes and records, made from their models."""

from __future__ import annotations

from harness import engine_specs, expected, gate_rules, study
from harness.docs.markdown import cell, table
from harness.docs.schema_tables import Section, sections_text
from harness.judge import records as judge_records
from harness.schema import distance, published, samples, summary
from harness.score import record as score_record
from sparsify import recipe, specs, variant
from sparsify.train import lora_settings, settings

_STUDY = """# Study files

A study is one YAML file: models, variants, suites, speed panels, distance and gate rules. `sparsebench run FILE`
runs it, `--dry-run` shows the plan. An unknown key is an error that names the allowed ones. Built-in studies:
[harness/studies](../../harness/studies). How to write one: [first study](../tutorial/first-study.md).
"""
_RECIPES = """# Recipes

A recipe is a YAML file with `stages:`, a list; each item is one of `slice`, `prune`, `pretrain`, `finetune`, `quantize`
with its keys. `slice` comes before `prune`, `quantize` comes last. The bundled ones are below, and so is every key.
What the stages promise: [sparsify/README.md](../../sparsify/README.md).
"""
_RECORDS = """# Records

What runs and other verbs leave, field by field. All of it is JSON or JSONL in UTF-8. Scores, recoveries and ratios are
fractions (0.87, not 87 %); what is undefined is null, with a `reason` beside it. The JSON Schema of `summary.json` is
[summary.schema.json](../../harness/schema/summary.schema.json); a file of another `schema_version` is refused.
"""
_FOLDER = (
    ("`study.json`", "the study with every default written out, and its hash; a folder holds one study"),
    ("`variants/NAME/`", "safetensors, tokenizer, configuration and [`variant.json`](#variantjson)"),
    ("`stages/`", "finished and unfinished stages of recipes, by content; recipes that begin alike share them"),
    ("`corpora/`", "training and calibration text that recipes name as `suite:...`"),
    ("`journal/VARIANT.SUITE.jsonl`", "what was generated, row by row, behind a header that names all it depends on"),
    ("`records/samples/VARIANT.SUITE.jsonl`", "scored rows of a cell: [sample rows](#sample-rows)"),
    ("`records/samples.parquet`", "all of them in one file; `scores` is a map from metric to a list of values"),
    ("`records/cells/VARIANT.SUITE.json`", "written last: it stands for a complete cell"),
    ("`records/verdicts/`", "what became of each generated program in the sandbox"),
    ("`records/speed/`", "raw time stamps of speed panels"),
    ("`records/distance/`", "distance to the baseline, where the study asks for it"),
    ("`summary.json`", "[the contract](#summaryjson) between a run and all that reads it"),
    ("`leaderboard.md`, `recovery.md`, `linears.md`", "tables for people, made from `summary.json` and `variant.json`"),
    ("`timings.json`", "seconds spent on making, evaluating, speed and reports"),
    ("`errors.log`", "tracebacks of unexpected errors; absent without any"),
)


def study_page() -> str:
    """Keys of a study file."""
    rules = "Under `gates:`, with `rule:` as its name. `variant:` and `suite:` are taken for lists of one."
    sections = [
        Section(
            "Study", study.Study, "The file itself. `from` is what a variant is made from: see [variants](#variants)."
        ),
        Section("Models", study.ModelSpec, "`models: {NAME: {...}}`"),
        Section("Variants", study.VariantSpec, "`variants: {NAME: {...}}`; the first is the reference."),
        Section("Endpoint of a variant", engine_specs.EndpointSpec, "`variants: {NAME: {endpoint: {...}}}`"),
        Section(
            "Suites", study.SuiteSpec, "`suites: {SUITE: {...}}`; suites and presets are in [suites.md](suites.md)."
        ),
        Section("Engine of this machine", engine_specs.EngineSpec, "`engine: {name: torch, ...}`, or the name alone."),
        Section("Engine vllm", engine_specs.VllmSpec, "`engine: {name: vllm, ...}`"),
        Section("Engine openai", engine_specs.OpenAISpec, "`engine: {name: openai, ...}`"),
        Section("Speed panels", study.SpeedSpec, "`speed: [{...}, ...]`"),
        Section("Distance", study.DistanceSpec, "`distance: {...}`"),
        Section("Perplexity", study.PerplexitySpec, "`perplexity: [{...}, ...]`"),
        Section("Expected values", expected.ExpectedSpec, "`expected: [{...}, ...]`"),
        Section("Scale", study.ScaleSpec, "Written by `--scale pocket`."),
        Section("Rule recovery", gate_rules.RecoveryRule, rules),
        Section("Rule non_inferior", gate_rules.NonInferiorRule),
        Section("Rule no_regression", gate_rules.NoRegressionRule),
        Section("Rule same_outputs", gate_rules.SameOutputsRule),
        Section("Rule sparsity", gate_rules.SparsityRule),
        Section("Rule size", gate_rules.SizeRule),
        Section("Rule no_revived_zeros", gate_rules.NoRevivedZerosRule),
        Section("Rule speedup", gate_rules.SpeedupRule),
    ]
    return f"{_STUDY}\n{sections_text(sections, mode='validation')}\n"


def recipe_page() -> str:
    """Bundled recipes, and the keys of stages."""
    rows = []
    for name in (*recipe.builtin_recipes(), *recipe.paper_recipes()):
        loaded = recipe.load_recipe(name)
        stages = " > ".join(stage.kind for stage in loaded.stages) or "none"
        file = f"[`{name}`](../../sparsify/recipes/{name}.yaml)"
        rows.append([file, stages, cell(loaded.description)])
    sections = [
        Section("Recipe", recipe.Recipe, "The file itself; `name` is the file's where it is not given."),
        Section("Stage", recipe.Stage),
        Section("slice", specs.SliceStage),
        Section("prune", specs.PruneStage),
        Section("allocation", specs.Allocation, "`allocation: {...}` of `prune`"),
        Section("reconstruct", specs.Reconstruct, "`reconstruct: {...}` of `prune`"),
        Section("calibration", specs.Calibration, "`calibration: {...}` of `slice`, `prune` and `quantize`"),
        Section("pretrain", specs.PretrainStage),
        Section("mixture", settings.MixtureSource, "`mixture: [{...}, ...]` of `pretrain`"),
        Section("finetune", specs.FinetuneStage),
        Section("losses", settings.LossWeights, "`losses: {...}` of `pretrain` and `finetune`"),
        Section("lora", lora_settings.LoraSettings, "`lora: {...}` of `pretrain` and `finetune`"),
        Section("select", settings.Select, "`select: {...}` of `pretrain` and `finetune`"),
        Section("gradual", settings.Gradual, "`gradual: {...}` of `pretrain` and `finetune`"),
        Section("quantize", specs.QuantizeStage),
        Section("prune inside quantize", specs.JointPrune, "`prune: {...}` of `quantize`"),
    ]
    bundled = table(("recipe", "stages", "what it does"), rows)
    return f"{_RECIPES}\n## Bundled recipes\n\n{bundled}\n\n{sections_text(sections, mode='validation')}\n"


def records_page() -> str:
    """Files of a run, and the fields of records."""
    shared = [
        Section("summary.json", summary.Summary),
        Section("Study of a summary", summary.StudyInfo),
        Section("Environment", summary.Environment),
        Section("Variant of a summary", summary.VariantSummary),
        Section("Sparsity", summary.SparsityInfo),
        Section("Masks", summary.MaskInfo),
        Section("Event", summary.Event),
        Section("Suite result", summary.SuiteResult),
        Section("Metric", summary.Metric),
        Section("Group value", summary.GroupValue),
        Section("Recovery", summary.RecoveryResult),
        Section("Difference", summary.DifferenceResult),
        Section("Speed row", summary.SpeedRow),
        Section("Speed baseline", summary.SpeedBaseline),
        Section("Speed confirmation", summary.SpeedConfirmation),
        Section("Speed packing", summary.SpeedPacking),
        Section("Perplexity row", published.PerplexityRow),
        Section("Published value", published.PublishedRow),
        Section("Distance of a variant", distance.DistanceResult),
        Section("Distance on a text", distance.TextDistance),
        Section("Distance measure", distance.Measure),
        Section("First token", distance.FirstToken),
        Section("Share by position", distance.PositionShare),
        Section("Sample rows", samples.SampleRow, "`records/samples/*.jsonl`"),
    ]
    separate = [
        [Section("distance.json", distance.DistanceFile), Section("Model of distance.json", distance.DistanceModel)],
        [
            Section("variant.json", variant.VariantInfo),
            Section("Recipe of a variant", variant.RecipeRecord),
            Section("Calibration of a variant", variant.CalibrationEntry),
            Section("Corpus of a variant", variant.CorpusEntry),
            Section("Sparsity of a variant", variant.Sparsity),
            Section("Mask check", variant.MaskCheck),
            Section("Event of a variant", variant.Event),
        ],
        [
            Section("summary.json of score", score_record.ScoreSummary),
            Section("verdicts.jsonl", score_record.Verdict),
            Section("Score metric", score_record.MetricResult),
            Section("Score file", score_record.FileInfo),
            Section("Missing items", score_record.MissingItems),
        ],
        [
            Section("summary.json of judge", judge_records.JudgeSummary),
            Section("Judge", judge_records.JudgeInfo),
            Section("Judged model", judge_records.ModelResult),
            Section("Judged score", judge_records.JudgedScore),
            Section("Pair counts", judge_records.PairCounts),
            Section("Length control", judge_records.LengthControlled),
            Section("Comparison of judged models", judge_records.Comparison),
        ],
    ]
    texts = [sections_text(shared, mode="serialization")]
    texts += [sections_text(group, mode="serialization", known=shared) for group in separate]
    folder = table(("file", "what"), [[name, cell(text)] for name, text in _FOLDER])
    return "\n".join([_RECORDS, f"## The folder of a run\n\n{folder}\n", "\n\n".join(texts)]) + "\n"
