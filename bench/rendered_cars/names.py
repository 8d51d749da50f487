"""Invented names of cars, half in Korean and half in Latin script; none is a maker's or a model's."""

# fmt: off
KOREAN = (
    "가온새", "누리안", "다온결", "라온휘", "마루솔", "바람결", "새벽별", "아라솔", "온새미", "자람터",
    "차오름", "타래온", "푸르내", "하늬온", "가람빛", "나래온", "다솜휘", "라윤재", "미리내온",
    "보라매솔", "산마루", "여울목", "오름새", "윤슬", "이든길", "잔물결", "초롱솔", "큰나래", "터울림",
    "한결솔", "해오름", "휘파람새", "고운누리", "노을빛", "달무리", "도담이", "두레온", "들메솔",
    "로하온", "모아솔", "물푸레", "반디솔", "별하늘", "빛가온", "사뿐이", "소담누리", "솔바람",
    "시나브로", "아람치", "안다미", "알찬솔", "어울림새", "연두빛", "예그리나", "올리솔", "우람이",
    "은가비", "이룸새", "잎새솔", "찬누리", "채움결", "초아솔", "키움새", "토리솔", "파란새", "포근솔",
    "하람결", "한울새", "해찬솔", "햇살누리", "혜윰", "흰여울", "가시버시", "그루솔", "꽃가람", "나린솔",
    "늘품이", "다흰새", "단미솔", "동살", "둥지새",
)
LATIN = (
    "Solenne", "Vareto", "Quillan", "Brivora", "Ostrane", "Melvique", "Tarsino", "Corvelle", "Dunaro", "Elvane",
    "Fiorsa", "Gravenne", "Halmora", "Istrelle", "Jovanne", "Kestrio", "Lumaro", "Morvane", "Nevisca",
    "Orlenne", "Pavona", "Quorra", "Rivello", "Sorvane", "Talmira", "Ulvaro", "Vintara", "Wexane", "Xylora",
    "Yavene", "Zentaro", "Altrine", "Belvaro", "Cindralle", "Dorvane", "Esquena", "Falvore", "Gildane",
    "Harvenne", "Ilvoro", "Jaspenne", "Kolvara", "Lestrane", "Marvolle", "Nolvane", "Opaline", "Prestane",
    "Qualore", "Rostova", "Silvane", "Tremora", "Umbrelle", "Velmora", "Wistane", "Ximora", "Yorvelle",
    "Zafrine", "Ardenique", "Bromelle", "Calvoro", "Deltorne", "Evarose", "Fennaro", "Gostrelle", "Helvora",
    "Indrane", "Jolvette", "Kaverne", "Lorvana", "Mistrelle", "Narvelo", "Oxenne", "Pelvora", "Quentelle",
    "Ravosta", "Savorne", "Tolvane", "Urbelle", "Vostrane", "Welmora", "Zorvelle",
)
