//! The command line's help in Korean: the same commands and options, a table of their texts.

use clap::{Arg, ArgAction, Command};

/// Texts of one command: its name, what it does, what stands below its options.
struct Page {
    name: &'static str,
    about: &'static str,
    after: &'static str,
    options: &'static [(&'static str, &'static str)],
}

/// Options that several commands share.
const SHARED: &[(&str, &str)] = &[
    ("model", "모델: 폴더, 허브 id, 또는 `dari models list`의 짧은 이름"),
    ("precision", "가중치와 곱셈의 정밀도"),
    ("settings", "레시피의 설정을 바꿉니다. 여러 번 줄 수 있습니다"),
    ("recipe", "레시피"),
    ("device", "실행할 곳: cpu, cuda, cuda:N, metal"),
    ("threads", "쓸 스레드 수. 없으면 모든 코어"),
    ("batch", "한 번에 모델을 지나는 그림이나 글의 수"),
    ("exact", "사진을 온전히 풉니다. 없으면 모델이 보는 것보다 훨씬 큰 JPEG는 줄여서 풉니다"),
    ("crop", "그림 파일의 한 부분만 봅니다: 왼쪽, 위, 너비, 높이(픽셀)"),
    ("json", "JSON으로 출력 (한 줄에 하나)"),
    ("max_tokens", "답의 최대 토큰 수"),
    ("temperature", "토큰을 얼마나 자유롭게 뽑을지. 0이면 언제나 가장 그럴듯한 것"),
    ("top_k", "가장 그럴듯한 K개 안에서만 뽑습니다. 0이면 전부"),
    ("top_p", "확률의 합이 이만큼이 되는 가장 적은 토큰 안에서만 뽑습니다"),
    ("min_p", "가장 그럴듯한 것의 이 비율보다 그럴듯한 토큰만 뽑습니다"),
    ("repetition_penalty", "이미 나온 토큰을 덜 그럴듯하게 합니다. 1이면 그대로"),
    ("seed", "뽑기의 씨앗"),
    ("stop", "이 글에서 답을 끝냅니다. 여러 번 줄 수 있습니다"),
    ("beams", "가장 그럴듯한 답을 찾아 이만큼의 갈래를 훑습니다"),
    ("length_penalty", "갈래를 훑을 때: 0보다 크면 긴 답이 유리합니다"),
    (
        "draft",
        "토큰을 미리 짐작해 같은 답을 더 빨리 냅니다: `lookup`은 지금까지의 글에서, 아니면 토큰이 같은 더 작은 모델로",
    ),
    ("cache", "읽은 것을 담아 두는 방식. 비트가 적으면 긴 글이 메모리를 덜 쓰고, 답이 달라질 수 있습니다"),
];

/// What stands below the measurements of a language model.
const SPOKEN: &str = "\
토큰은 무작위로 뽑고, 답은 스스로 끝나지 않습니다. JSON, 하나: {\"tokens_per_second\",
\"time_to_first_token_ms\", \"peak_memory_mb\", \"prompt_tokens\", \"tokens\", \"runs\", \"load_ms\", \"model\",
\"precision\", \"threads\", \"simd\"}. 모두 여러 번 잰 값의 중앙값입니다. `decode`는 언어 모델만이면 \"weights_gb_per_second\"와,
메모리를 그냥 읽는 속도 \"memory_gb_per_second\"도 말합니다";

const PAGES: &[Page] = &[
    Page {
        name: "dari",
        about: "보고, 말하고, 이해합니다: 그림과 말을 하나의 엔진으로",
        after: "\
예:
  dari search \"빨간 사과\" --in samples
  dari classify photo.jpg --labels \"고양이,강아지,cat\"
  dari embed --images *.jpg --texts \"빨간 사과\" --output vectors.npy",
        options: &[],
    },
    Page {
        name: "embed",
        about: "그림과 글을 벡터로 바꿉니다",
        after: "\
입력 하나에 한 줄: 그림이 먼저, 글이 다음, 각각 준 순서대로. 읽지 못한 그림은 .npy에서는 NaN으로,
.jsonl에서는 \"error\"로 자리를 지키고 stderr에 이름이 나옵니다. --texts-file의 빈 줄은 세지
않습니다.

JSON, 한 줄에 하나: {\"input\", \"kind\": \"picture\"|\"text\", \"vector\": [..]} 또는 {.., \"error\"}

예:
  dari embed --images a.jpg b.png --texts \"빨간 사과\" --output vectors.npy
  dari embed --texts \"빨간 사과\" --json",
        options: &[
            ("images", "그림 파일, 또는 그림이 든 폴더"),
            ("texts", "글"),
            ("texts_file", "한 줄에 글 하나씩 든 파일"),
            ("output", "쓸 곳: .npy (float32, [n, dim]), .jsonl, .parquet. 없으면 stdout에 JSON 줄로"),
            ("no_normalize", "길이를 1로 맞추지 않고 모델이 준 대로"),
        ],
    },
    Page {
        name: "classify",
        about: "그림마다 어떤 라벨에 해당하는지 말합니다",
        after: "\
템플릿이 여럿이면 라벨의 벡터는 그 평균입니다. CLIP의 확률은 라벨 전체에서 합이 1이고, SigLIP의
확률은 라벨마다 따로입니다. 분류기 체크포인트는 자기 라벨이 있어 라벨을 주지 않아도 됩니다.

JSON, 한 줄에 하나: {\"picture\", \"labels\": [{\"label\", \"probability\"}, ..]}
또는 {\"picture\", \"error\"}

예:
  dari classify photo.jpg --labels \"고양이,강아지,cat\"
  dari classify *.png --labels-file labels.txt --template \"{} 사진\" --template \"{} 그림\"",
        options: &[
            ("images", "그림 파일, 또는 그림이 든 폴더"),
            ("labels", "쉼표로 나눈 라벨"),
            ("labels_file", "한 줄에 라벨 하나씩 든 파일"),
            ("template", "라벨을 넣을 문장. {} 자리에 라벨이 들어갑니다. 여러 번 줄 수 있습니다"),
            ("top", "그림마다 보여 줄 라벨 수"),
        ],
    },
    Page {
        name: "caption",
        about: "그림이 무엇을 보여 주는지 말로 합니다",
        after: "\
바이너리 안의 모델(mini-voice), LLaVA, Idefics 3, SmolVLM, 또는 직접 만든 모델입니다. 그림이 하나면
말이 나오는 대로, 여럿이면 한 줄에 하나씩 보여 줍니다: 경로, 탭, 설명. 여럿은 메모리가 되는
대로 여덟 장이나 --batch까지 나란히, 온도나 빔이나 --draft가 있으면 하나씩 답합니다. 믿기 어려운 답에는
(확실하지 않음)이 붙습니다.

JSON, 그림마다 하나: {\"picture\", \"text\", \"prompt_tokens\", \"reused_tokens\", \"tokens\", \"ended\",
\"confidence\", \"unsure\"} 또는 {\"picture\", \"error\"}

예:
  dari caption samples
  dari caption photo.jpg --model ./SmolVLM-256M-Instruct
  dari caption samples --model ./llava-1.5-7b-hf --json",
        options: &[
            ("images", "그림 파일, 또는 그림이 든 폴더"),
            ("prompt", "한 문장으로 설명해 달라는 말 대신 그림마다 물을 것"),
        ],
    },
    Page {
        name: "ask",
        about: "그림에 관한 질문에 답합니다",
        after: "\
마지막 인자가 질문입니다. 그림마다 따로 묻고 caption처럼 나란히 답하며, --together면 모두를 한
번에 묻습니다.

JSON, 그림마다 하나: {\"picture\", \"text\", \"prompt_tokens\", \"reused_tokens\", \"tokens\", \"ended\",
\"confidence\", \"unsure\"} 또는 {\"picture\", \"error\"}. --together면 \"pictures\"가 든 것 하나

예:
  dari ask samples/red-apple.png \"사과는 무슨 색이야?\"
  dari ask photo.jpg \"차는 무슨 색이야?\" --model ./SmolVLM-256M-Instruct
  dari ask before.png after.png \"무엇이 바뀌었어?\" --together --model ./SmolVLM-256M-Instruct",
        options: &[
            ("inputs", "그림 파일이나 그림이 든 폴더, 그리고 마지막에 질문"),
            ("together", "모든 그림을 한 번에 묻습니다"),
            ("system", "질문에 앞서 모델에게 해 두는 말"),
        ],
    },
    Page {
        name: "complete",
        about: "글을 이어 씁니다",
        after: "\
글마다 뒤를 이어, 나오는 대로 보여 줍니다. 모델은 언어 모델입니다: GPT-2, LLaMA, Mistral, Qwen 2의
폴더나 GGUF 파일.

JSON, 한 줄에 하나: {\"prompt\", \"text\", \"prompt_tokens\", \"reused_tokens\", \"tokens\",
\"ended\": \"stop\"|\"length\"|\"full\"|\"interrupted\", \"confidence\"}, --draft이면 \"guesses\": {\"made\", \"right\"}도

예:
  dari complete \"옛날 옛적에\" --model qwen2.5.gguf --max-tokens 60
  dari complete --model ./qwen2 --temperature 0.7 --seed 1 < story.txt",
        options: &[("texts", "이어 쓸 글. 없으면 표준 입력")],
    },
    Page {
        name: "chat",
        about: "언어 모델과 이야기합니다",
        after: "\
한 줄이 메시지 하나이고, 답은 나오는 대로 보입니다. ctrl-C는 답을 멈추고 ctrl-D는 끝냅니다. 명령:
/image 파일, /system 글, /save 파일, /load 파일, /reset, /help, /exit. 한 번 읽은 것은 다시 읽지
않습니다.
줄을 파이프로 넣을 수 있습니다: 한 줄이 메시지 하나.

JSON, 답마다 하나: {\"text\", \"prompt_tokens\", \"reused_tokens\", \"tokens\", \"ended\",
\"confidence\"}

예:
  dari chat --model SmolLM2-135M.gguf
  printf '안녕?\\n잘 지내?\\n' | dari chat --model ./qwen2 --json",
        options: &[
            ("images", "첫 메시지가 이야기할 그림"),
            ("system", "메시지들에 앞서 모델에게 해 두는 말"),
        ],
    },
    Page {
        name: "similarity",
        about: "그림과 글이 얼마나 가까운지 히트맵으로 보여 줍니다",
        after: "\
JSON, 하나: {\"pictures\": [..], \"texts\": [..], \"cosine\": [[..]], \"probability\": [[..]],
\"failed\": [{\"picture\", \"error\"}]}, 행이 그림.

예:
  dari similarity --images samples --texts \"빨간 사과\" \"노란 배\"
  dari similarity --images a.png b.png --texts 고양이 강아지 --png heatmap.png",
        options: &[
            ("images", "그림 파일, 또는 그림이 든 폴더"),
            ("texts", "글"),
            ("png", "히트맵을 그림으로: 행이 그림, 열이 글, 순서대로 번호"),
        ],
    },
    Page {
        name: "look",
        about: "그림의 어디에 그 말이 있는지 보여 줍니다",
        after: "\
글마다 지도가 둘입니다: 자리마다 따로 본 유사도, 그림 전체 유사도의 기울기. 그림은 모델이 보는 부분입니다.
--png는 글마다 한 줄로 그림, 유사도, 기울기를 그립니다.

JSON, 한 줄에 하나: {\"picture\", \"text\", \"down\", \"across\", \"similarity\": [[..]],
\"gradient\": [[..]], \"whole\"}

말하는 모델은 글을 질문으로 받아 답하고 지도 하나를 보여 줍니다: 주의 롤아웃, 답이 그림의 어디에서 왔는지.
JSON: {\"picture\", \"text\", \"answer\", \"confidence\", \"down\", \"across\", \"rollout\": [[..]], \"share\"}

예:
  dari look samples/red-apple.png \"빨간 사과\"
  dari look photo.jpg \"강아지\" \"a ball\" --png places.png",
        options: &[("image", "그림"), ("texts", "찾을 말, 또는 말하는 모델에게 할 질문"), ("png", "지도를 그림으로 그립니다")],
    },
    Page {
        name: "index",
        about: "폴더의 그림을 검색 색인에 넣습니다",
        after: "\
색인은 사용자의 데이터 폴더($DARI_DATA_HOME, 없으면 시스템의 자리)에 있고 그림 폴더에는 두지
않습니다. 바뀐 것만 다시 임베딩하고, 끊긴 작업은 이어집니다.

JSON, 하나: {\"folder\", \"seen\", \"embedded\", \"unchanged\", \"moved\", \"copied\",
\"removed\", \"failed\": [{\"picture\", \"error\"}], \"stopped\"}

예:
  dari index ~/Pictures",
        options: &[("folder", "그림 폴더")],
    },
    Page {
        name: "search",
        about: "말이나 그림으로 그림을 찾습니다",
        after: "\
--in을 주면 그 폴더를 먼저 색인하고, 없으면 이 모델로 색인한 전부에서 찾습니다. 말과 그림을 함께
주면 둘 다에 가까운 것을 찾습니다.

JSON, 한 줄에 하나: {\"rank\", \"score\", \"path\"}

예:
  dari search \"빨간 사과\" --in samples
  dari search --image cat.jpg -k 20
  dari search \"바다 위의 배\" --in ~/Pictures --html found.html",
        options: &[
            ("show", "그림을 터미널에 보여 줍니다: 되는 곳(kitty, iTerm)에서는 그림으로, 아니면 색 칸으로"),
            ("query", "찾을 말"),
            ("image", "이 그림과 비슷한 그림을 찾습니다"),
            ("folder", "찾을 폴더"),
            ("k", "보여 줄 그림 수"),
            ("html", "찾은 것을 그림까지 담은 페이지로 씁니다"),
        ],
    },
    Page {
        name: "models",
        about: "모델을 늘어놓고, 설명하고, 받아 옵니다",
        after: "\
예:
  dari models list
  dari models show mini
  dari models pull siglip2-b16
  dari models pack ~/clip --precision int8",
        options: &[],
    },
    Page {
        name: "list",
        about: "바이너리 안의 모델, 받아 둔 모델, 짧은 이름을 보여 줍니다",
        after: "",
        options: &[],
    },
    Page {
        name: "show",
        about: "모델이 무엇이고 무엇을 할 수 있는지 말합니다",
        after: "",
        options: &[("model", "모델: 폴더, 허브 id, 또는 짧은 이름")],
    },
    Page {
        name: "merge",
        about: "어댑터를 모델에 합쳐 하나로 씁니다",
        after: "\
어댑터는 PEFT 형식의 폴더이고, adapter_config.json이 모델을 가리킵니다. 결과는 그 모델의 형식입니다.

예:
  dari models merge runs/lora/model ~/merged",
        options: &[("model", "어댑터 폴더"), ("output", "쓸 폴더. 아직 없어야 합니다")],
    },
    Page {
        name: "pack",
        about: "모델의 가중치를 곁의 파일에 포장해, 다음에는 바로 읽습니다",
        after: "\
파일은 모델 폴더의 packed-PRECISION.safetensors입니다. 배치가 다른 dari나 바뀐 가중치는 이 파일을
쓰지 않습니다.

JSON, 하나: {\"model\", \"precision\", \"file\", \"bytes\"}",
        options: &[("model", "모델: 폴더, 허브 id, 또는 짧은 이름")],
    },
    Page {
        name: "pull",
        about: "허브에서 모델을 받습니다",
        after: "",
        options: &[("model", "모델: 허브 id 또는 짧은 이름")],
    },
    Page {
        name: "doctor",
        about: "이 기계와 이 빌드로 할 수 있는 일을 말합니다",
        after: "예:\n  dari doctor --json",
        options: &[],
    },
    Page {
        name: "train",
        about: "레시피대로 모델을 학습합니다",
        after: "\
레시피는 TOML이고 프로젝트의 것은 recipes/에 있습니다. 체크포인트는 공개 형식의 모델 폴더입니다.
Ctrl-C는 체크포인트를 남기고 끝나며, --resume은 끊기지 않은 것처럼 가장 새것에서 이어 갑니다.
터미널에서는 손실 곡선과 배치의 유사도를 실시간으로 보여 주고, 끝나면 loss.png를 출력 폴더에 그립니다.
JSON, 단계마다 한 줄: {\"step\", \"steps\", \"loss\", \"learning_rate\", ..}

예:
  dari train recipes/mini.toml
  dari train recipes/mini.toml --resume
  dari train recipes/scenes.toml --set train.steps=200 --set output=runs/try",
        options: &[
            ("device", "실행할 곳: cpu, cuda 또는 cuda:N"),
            ("resume", "체크포인트가 있으면 가장 새것에서 이어 갑니다"),
            ("plain", "터미널에서 실시간 화면 대신 막대 하나만"),
        ],
    },
    Page {
        name: "bench",
        about: "모델이 여기서 얼마나 빠른지 잽니다",
        after: "\
시계가 돌기 전에 가중치를 읽고 데워 둡니다. 재는 동안에는 파일을 읽거나 그림을 풀지 않습니다.

예:
  dari bench embed
  dari bench embed --model ~/clip --precision int8 --batch 1 --texts
  dari bench decode --model smollm2.gguf --tokens 128 --threads 2
  dari bench train recipes/scenes.toml --json",
        options: &[],
    },
    Page {
        name: "bench embed",
        about: "그림이나 글을 벡터로",
        after: "\
JSON, 하나: {\"median_ms\", \"min_ms\", \"max_ms\", \"runs\", \"load_ms\", \"peak_memory_mb\",
\"model\", \"input\", \"batch\", \"precision\", \"threads\", \"simd\"}",
        options: &[
            ("texts", "그림 대신, 모델이 읽는 만큼 긴 글"),
            ("tokens", "저마다의 길이를 가진 글: 토큰 id 목록의 목록이 든 JSON 파일"),
            ("runs", "재는 횟수"),
        ],
    },
    Page {
        name: "bench prefill",
        about: "언어 모델이 프롬프트를 읽는 속도",
        after: SPOKEN,
        options: &[("tokens", "프롬프트의 토큰 수"), ("runs", "재는 횟수")],
    },
    Page {
        name: "bench decode",
        about: "언어 모델이 토큰을 하나씩 쓰는 속도",
        after: SPOKEN,
        options: &[("tokens", "쓸 토큰 수"), ("runs", "재는 횟수")],
    },
    Page {
        name: "bench ask",
        about: "그림을 보고 질문을 읽고 답하는 속도",
        after: SPOKEN,
        options: &[("tokens", "답의 토큰 수"), ("runs", "재는 횟수")],
    },
    Page {
        name: "bench train",
        about: "레시피대로 한 단계 학습",
        after: "\
레시피 옆에는 아무것도 쓰지 않습니다. JSON, 하나: {\"median_ms\", \"min_ms\", \"max_ms\", \"runs\",
\"forward_ms\", \"backward_ms\", \"optimizer_ms\", \"peak_memory_mb\", \"batch\", \"threads\", \"simd\"}",
        options: &[("runs", "재는 단계 수")],
    },
    Page {
        name: "evaluate",
        about: "내 그림에서 모델이 얼마나 좋은지 잽니다",
        after: "\
자료는 학습이 읽는 것과 같습니다: 캡션이 있는 폴더나 클래스마다 폴더, CSV, TSV, JSON Lines, COCO 캡션,
WebDataset 샤드. 점수가 같으면 번호가 낮은 쪽이 먼저입니다.

예:
  dari evaluate zero-shot animals --template \"{} 사진\"
  dari evaluate retrieval captions_val2017.json --model ~/clip
  dari evaluate linear-probe --train animals/train --test animals/test",
        options: &[],
    },
    Page {
        name: "evaluate zero-shot",
        about: "클래스 이름만으로 그림마다 클래스를 맞힙니다",
        after: "\
그림의 클래스는 그 그림에 대해 처음 적힌 말입니다. --save는 pictures.npy [n, dim], classes.npy
[클래스, 틀, dim], labels.json, classes.json을 씁니다.

JSON, 하나: {\"data\", \"model\", \"precision\", \"pictures\", \"failed\", \"classes\", \"chance\",
\"top_1\", \"top_5\", \"mean_per_class\"}",
        options: &[
            ("data", "그림과 그 클래스"),
            ("labels_file", "한 줄에 클래스 하나씩 든 파일. 없으면 자료에 나오는 것들"),
            ("template", "클래스를 넣을 문장, {}가 그 자리. 여러 번 줄 수 있습니다"),
            ("language", "이 언어의 말로만 잽니다"),
            ("save", "임베딩과 클래스를 이 폴더에 남깁니다"),
        ],
    },
    Page {
        name: "evaluate retrieval",
        about: "캡션으로 그림을, 그림으로 캡션을 찾습니다",
        after: "\
--save는 pictures.npy [n, dim], texts.npy [글, dim], 글마다의 그림인 pairs.json을 씁니다.

JSON, 하나: {\"data\", \"model\", \"precision\", \"pictures\", \"failed\", \"texts\",
\"text_to_picture\": {\"at_1\", \"at_5\", \"at_10\"}, \"picture_to_text\": {..}}",
        options: &[
            ("data", "그림과 그 캡션"),
            ("language", "이 언어의 말로만 잽니다"),
            ("save", "임베딩과 짝을 이 폴더에 남깁니다"),
        ],
    },
    Page {
        name: "evaluate linear-probe",
        about: "그림 벡터에서 선형층 하나가 무엇을 읽어 내는지 잽니다",
        after: "\
배정밀도로 끝까지 맞춘 로지스틱 회귀: 평균 교차 엔트로피 + lambda / 2 * |W|^2.

JSON, 하나: {\"data\", \"model\", \"precision\", \"pictures\", \"failed\", \"classes\", \"chance\",
\"train_pictures\", \"lambda\", \"train\": {\"top_1\", \"top_5\", \"mean_per_class\"}, \"test\": {..},
\"fit\": {\"objective\", \"steps\", \"gradient_norm\"}}",
        options: &[
            ("train", "배울 자료"),
            ("test", "잴 자료"),
            ("lambda", "큰 가중치를 얼마나 누를지"),
            ("standardise", "먼저 값마다 평균 0, 편차 1로 맞춥니다"),
            ("language", "이 언어의 말로만 잽니다"),
        ],
    },
    Page {
        name: "completions",
        about: "셸 자동 완성을 씁니다",
        after: "예:\n  dari completions bash > ~/.local/share/bash-completion/completions/dari",
        options: &[("shell", "셸")],
    },
    Page {
        name: "man",
        about: "매뉴얼 페이지를 씁니다",
        after: "예:\n  dari man --output ~/.local/share/man/man1",
        options: &[("output", "명령마다 한 장씩 이 폴더에 씁니다. 없으면 본문만 stdout에")],
    },
];

/// How a help text is laid out.
const LAYOUT: &str = "{about-with-newline}\n사용법: {usage}\n\n{all-args}{after-help}";

/// The same command line, its texts in Korean.
pub fn translate(command: Command) -> Command {
    let named = command.get_version().is_some();
    let command = page(command, "");
    // The version flag is built in at the top alone.
    if named {
        command.disable_version_flag(true).arg(flag("version", 'V', "버전을 보여 줍니다", ArgAction::Version))
    } else {
        command
    }
}

fn page(command: Command, above: &str) -> Command {
    let name = command.get_name().to_owned();
    // A name that stands twice is told apart by the command above it.
    let both = format!("{above} {name}");
    let page = PAGES.iter().find(|page| page.name == both).or(PAGES.iter().find(|page| page.name == name));
    let mut command = command
        .help_template(LAYOUT)
        .subcommand_help_heading("명령")
        .disable_help_subcommand(true)
        .disable_help_flag(true)
        .arg(flag("help", 'h', "도움말을 보여 줍니다", ArgAction::Help));
    if let Some(page) = page {
        command = command.about(page.about);
        if !page.after.is_empty() {
            command = command.after_help(page.after);
        }
    }
    let own = page.map_or(&[][..], |page| page.options);
    command = command.mut_args(|argument| {
        let id = argument.get_id().as_str().to_owned();
        let heading = match argument.get_help_heading() {
            Some("Model") => "모델",
            _ if argument.is_positional() => "인자",
            _ => "옵션",
        };
        let text = own.iter().chain(SHARED).find(|(known, _)| *known == id);
        let argument = argument.help_heading(heading);
        match text {
            Some((_, text)) => argument.help(*text),
            None => argument,
        }
    });
    command.mut_subcommands(|below| self::page(below, &name))
}

fn flag(name: &'static str, short: char, text: &'static str, action: ArgAction) -> Arg {
    Arg::new(name).short(short).long(name).help(text).action(action).help_heading("옵션")
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::cli::Cli;

    fn is_korean(text: &str) -> bool {
        text.chars().any(|c| ('가'..='힣').contains(&c))
    }

    fn check(command: &Command) {
        let name = command.get_name();
        let about = command.get_about().map(ToString::to_string).unwrap_or_default();
        assert!(is_korean(&about), "{name} has no Korean text");
        for argument in command.get_arguments() {
            let help = argument.get_help().map(ToString::to_string).unwrap_or_default();
            assert!(is_korean(&help), "{name} {} has no Korean text", argument.get_id());
        }
        if let Some(after) = command.get_after_help() {
            assert!(is_korean(&after.to_string()), "{name}: the text below the options is not Korean");
        }
        command.get_subcommands().for_each(check);
    }

    #[test]
    fn every_command_and_option_has_its_korean_text() {
        check(&translate(Cli::command()));
    }
}
